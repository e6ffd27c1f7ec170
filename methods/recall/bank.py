"""The memory bank and its head: the mirror of the token embedding and of `lm_head`.

`memory head`: hidden state of <recall> -> one matmul over L2-normalised vectors -> raw logits, no softmax
(specification 3.2). `memory embedding`: the chosen memory's vectors are the next input embeddings, one after
another (specification 3.4).

Shapes: B batch, D hidden, M memories, P vectors of one memory, N memories that are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import MethodError
from tasks.files import write_whole

NULL_ID = ""  # the null memory: "no clause covers this"
FORMAT = 3  # of a saved bank


def check_entries(ids: Sequence[str], texts: Sequence[str]) -> None:
    """Raises MethodError for no memory, two with one id or one without text: before anything is trained."""
    if not ids:
        raise MethodError("memory bank: there is no memory to write; give at least one")
    seen: set[str] = set()
    for memory_id, text in zip(ids, texts, strict=True):
        if memory_id in seen:
            raise MethodError(f"memory bank: two memories have the id {memory_id!r}; give each its own id")
        if not text.strip():
            raise MethodError(f"memory bank: memory {memory_id!r} has no text; remove it or fill it in")
        seen.add(memory_id)


def check_vectors(ids: Sequence[str], vectors_ND: Tensor) -> None:
    """Raises MethodError, naming the memory, for a vector that no direction can be taken of."""
    norm_N = vectors_ND.norm(dim=-1)
    good_N = torch.isfinite(norm_N) & (norm_N > 0)
    if not bool(good_N.all()):
        wrong = ids[int(good_N.logical_not().nonzero()[0])]
        raise MethodError(
            f"memory bank: the vector of {wrong!r} is zero or holds NaN or infinity; extract it again"
        )


class MemoryBank:
    """Memory ids, texts, keys (M, D) to be found by, and what is fed for each memory (P, D), in one order.

    A key is a unit vector, or the mean of unit states and so the shorter, the further apart they lie.

    center_D is subtracted from raw vectors before they are normalised: last-layer states of any two texts
    have cosines near 1, and centring spreads them (Ethayarajh 2019, arXiv:1909.00512). Zero: the
    specification's plain vectors. It is fitted once and then frozen, so that later writes land in the same
    space. Queries are not centred: training makes them fit the keys.

    gain: the L2 norm at which vectors of the fit are fed. A memory has one vector, or several, since one of a
    small model does not hold a whole clause (`methods.recall.writing`), or none where its text itself is fed.
    """

    def __init__(self, center_D: Tensor, gain: float, fingerprint: str) -> None:
        self.center_D = center_D.float()
        self.gain = gain
        self.fingerprint = fingerprint
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.keys_MD = torch.empty(0, center_D.shape[0], device=center_D.device)
        self.fed: list[Tensor] = []  # (P, D) each
        self._rows: dict[str, int] = {}  # id -> place in all of these

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        """Bytes of keys, of all that is fed, and of the texts, which are drafts of what is decoded."""
        texts = sum(len(text.encode()) for text in self.texts)
        return self.keys_MD.nbytes + sum(fed_PD.nbytes for fed_PD in self.fed) + texts

    def __contains__(self, memory_id: str) -> bool:
        return memory_id in self._rows

    def index(self, memory_id: str) -> int:
        return self._rows[memory_id]

    def normalise(self, raw_ND: Tensor) -> Tensor:
        """Raw last-token states -> unit vectors of the bank's space."""
        return F.normalize(raw_ND.float().to(self.center_D.device) - self.center_D, dim=-1)

    def write(self, ids: Sequence[str], texts: Sequence[str], keys_ND: Tensor, fed: Sequence[Tensor]) -> None:
        """Adds memories, or replaces those whose id is known. Keys over unit length are L2-normalised at write.

        fed: (P, D) of each memory, as they are to be fed.
        Raises MethodError for an empty text, two memories with one id, a wrong width, or NaN.
        """
        check_entries(ids, texts)
        for memory_id, fed_PD in zip(ids, fed, strict=True):
            for width in (keys_ND.shape[-1], fed_PD.shape[-1]):
                if width != self.center_D.shape[0]:
                    raise MethodError(
                        f"memory bank: the vector of {memory_id!r} has width {width}, this model needs "
                        f"{self.center_D.shape[0]}; extract it again with this model"
                    )
        check_vectors(ids, keys_ND)
        check_vectors([i for i, fed_PD in zip(ids, fed, strict=True) for _ in fed_PD], torch.cat(list(fed)))
        device = self.keys_MD.device
        keys_ND = keys_ND.float().to(device)
        keys_ND = keys_ND / keys_ND.norm(dim=-1, keepdim=True).clamp(min=1.0)
        old = [n for n, memory_id in enumerate(ids) if memory_id in self._rows]
        new = [n for n, memory_id in enumerate(ids) if memory_id not in self._rows]
        self._rows |= {ids[n]: len(self.ids) + place for place, n in enumerate(new)}
        self.ids += [ids[n] for n in new]
        self.keys_MD = torch.cat([self.keys_MD, keys_ND[new]])
        self.texts += [texts[n] for n in new]
        self.fed += [fed[n].float().to(device, copy=True) for n in new]
        for n in old:
            row = self._rows[ids[n]]
            self.texts[row], self.keys_MD[row] = texts[n], keys_ND[n]
            self.fed[row] = fed[n].float().to(device, copy=True)

    def forget(self, ids: Sequence[str]) -> None:
        """Removes memories exactly. An unknown id raises MethodError and nothing is removed."""
        unknown = [i for i in ids if i not in self._rows]
        if unknown:
            raise MethodError(f"memory bank: cannot forget {unknown[0]!r}: no memory has that id")
        gone = set(ids)
        keep = [row for row, memory_id in enumerate(self.ids) if memory_id not in gone]
        self.ids = [self.ids[row] for row in keep]
        self.texts = [self.texts[row] for row in keep]
        self.fed = [self.fed[row] for row in keep]
        self.keys_MD = self.keys_MD[keep]
        self._rows = {memory_id: row for row, memory_id in enumerate(self.ids)}

    @property
    def num_vectors(self) -> int:
        """P: how many vectors are fed for a memory of the fit; 1 for an empty bank."""
        return len(self.fed[0]) if self.fed else 1

    @property
    def values_MPD(self) -> Tensor:
        """Unit vectors of all that is fed, of memories with as many vectors each."""
        return F.normalize(torch.stack(self.fed), dim=-1)

    def take_values(self, values_MPD: Tensor) -> None:
        """Replaces what is fed for every memory by these unit vectors times the gain."""
        self.fed = list((values_MPD * self.gain).clone())

    def memory_head(self, query_BD: Tensor) -> Tensor:
        """(B, D) states of <recall> -> (B, M) logits, raw: no temperature, no softmax.

        Of unit keys the cosines; of shorter ones 1 less half the squared distance to the unit state, by which a
        class whose members lie apart, such as questions that no clause answers, still gets its own (prototypical
        networks; Snell et al. 2017, arXiv:1703.05175).
        """
        return (
            F.normalize(query_BD.float(), dim=-1) @ self.keys_MD.T + (1.0 - self.keys_MD.square().sum(dim=-1)) / 2
        )

    def memory_embeddings(self, index: int) -> Tensor:
        """(P, D): all that is fed for a memory, one vector in place of each pad."""
        return self.fed[index]

    def save(self, folder: Path) -> None:
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"keys": self.keys_MD, "fed": torch.cat(self.fed), "center": self.center_D}
        meta = {
            "format": FORMAT,
            "ids": self.ids,
            "texts": self.texts,
            "num_vectors": [len(fed_PD) for fed_PD in self.fed],
            "gain": self.gain,
            "fingerprint": self.fingerprint,
        }
        write_whole(folder / "bank.safetensors", save({k: v.contiguous().cpu() for k, v in tensors.items()}))
        write_whole(folder / "bank.json", json.dumps(meta, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, folder: Path, fingerprint: str, device: torch.device) -> MemoryBank:
        """Raises MethodError if the bank was made with another model or saved by another version."""
        from safetensors.torch import load_file

        meta = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        if meta.get("format", 1) != FORMAT:
            raise MethodError(
                f"{folder}: this bank has format {meta.get('format', 1)}, and this version of the program reads "
                f"format {FORMAT}; use the version that saved it, or fit again"
            )
        if meta["fingerprint"] != fingerprint:
            raise MethodError(
                f"{folder}: this bank was made with another model (fingerprint {meta['fingerprint']}, the loaded "
                f"model has {fingerprint}); load that model or write the memories again"
            )
        tensors = load_file(str(folder / "bank.safetensors"), device=str(device))
        bank = cls(tensors["center"], meta["gain"], meta["fingerprint"])
        bank.ids, bank.texts, bank.keys_MD = list(meta["ids"]), list(meta["texts"]), tensors["keys"]
        bank._rows = {memory_id: row for row, memory_id in enumerate(bank.ids)}
        bank.fed = list(tensors["fed"].split(meta["num_vectors"]))
        return bank
