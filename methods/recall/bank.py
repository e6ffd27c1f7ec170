"""The memory bank and its head: the mirror of the token embedding and of `lm_head`.

`memory head`: hidden state of <recall> -> one matmul over L2-normalised vectors -> raw logits, no softmax
(specification 3.2). `memory embedding`: the chosen vector, times the gain, is the next input embedding
(specification 3.4).

A memory has one key, its whole text's, or several: its text's and its sentences'. Its logit is then that of
its best key, and one value is injected, whichever key it was.

Shapes: B batch, D hidden, M memories, K keys a memory, N memories that are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import MethodError

NULL_ID = ""  # the null memory: "no clause covers this"
FORMAT = 2  # of a saved bank: 1 has one key and one value a memory, 2 several of either


def check_entries(ids: Sequence[str], texts: Sequence[str]) -> None:
    """Raises MethodError for no memory, two with one id or one without text: before anything is trained."""
    if not ids:
        raise MethodError("memory bank: there is no memory to write; give at least one")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if list(ids).count(i) > 1)
        raise MethodError(f"memory bank: two memories have the id {twice!r}; give each its own id")
    for memory_id, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise MethodError(f"memory bank: memory {memory_id!r} has no text; remove it or fill it in")


def check_vectors(memory_id: str, vectors_ND: Tensor) -> None:
    """Raises MethodError for a vector that no direction can be taken of."""
    if not torch.isfinite(vectors_ND).all() or not vectors_ND.norm(dim=-1).all():
        raise MethodError(
            f"memory bank: the vector of {memory_id!r} is zero or holds NaN or infinity; extract it again"
        )


def best_cosines(query_BD: Tensor, keys_MKD: Tensor) -> Tensor:
    """(B, M): each unit query's cosine with each memory's best unit key, in one matmul.

    MaxSim of late interaction (Khattab and Zaharia 2020, arXiv:2004.12832) with a single query vector.
    """
    return (query_BD @ keys_MKD.flatten(0, 1).T).unflatten(1, keys_MKD.shape[:2]).amax(dim=-1)


class MemoryBank:
    """Memory ids, texts, unit key vectors (M, K, D) and injected value vectors (M, D), in one order.

    center_D is subtracted from raw vectors before they are normalised: last-layer states of any two texts
    have cosines near 1, and centring spreads them (Ethayarajh 2019, arXiv:1909.00512). Zero: the
    specification's plain vectors. It is fitted once and then frozen, so that later writes land in the same
    space. Queries are not centred: training makes them fit the keys.

    A memory may have several vectors, (P, D), fed one after another at their own size in place of its value: one
    vector of a small model does not hold a whole clause (`methods.recall.writing`).
    `values_MD` then has the direction of the first of them.
    """

    def __init__(self, center_D: Tensor, gain: float, fingerprint: str, num_keys: int = 1) -> None:
        self.center_D = center_D.float()
        self.gain = gain
        self.fingerprint = fingerprint
        self.ids: list[str] = []
        self.texts: list[str] = []
        width = center_D.shape[0]
        self.keys_MKD = torch.empty(0, num_keys, width, device=center_D.device)
        self.values_MD = torch.empty(0, width, device=center_D.device)
        self.several: dict[str, Tensor] = {}  # id -> (P, D)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_keys(self) -> int:
        """K."""
        return self.keys_MKD.shape[1]

    @property
    def keys_MD(self) -> Tensor:
        """The keys of the whole texts, which come first; where K is 1, all keys."""
        return self.keys_MKD[:, 0]

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and of all that is fed; tied vectors count once."""
        tied = torch.equal(self.keys_MD, self.values_MD)
        further = sum(fed_PD[1:].nbytes for fed_PD in self.several.values())
        return self.keys_MKD.nbytes + (0 if tied else self.values_MD.nbytes) + further

    def index(self, memory_id: str) -> int:
        return self.ids.index(memory_id)

    def normalise(self, raw_ND: Tensor) -> Tensor:
        """Raw last-token states -> unit vectors of the bank's space."""
        return F.normalize(raw_ND.float().to(self.center_D.device) - self.center_D, dim=-1)

    def write(
        self, ids: Sequence[str], texts: Sequence[str], keys: Tensor, values_ND: Tensor | Sequence[Tensor]
    ) -> None:
        """Adds memories, or replaces those whose id is known. Vectors are L2-normalised at write.

        keys: (N, K, D), or (N, D) for memories with one key, which then stands in all K places. A value of (P, D)
        in place of (D,) is kept at its own size: P vectors to be fed one after another.
        Raises MethodError for an empty text, two memories with one id, a wrong width, or NaN.
        """
        check_entries(ids, texts)
        keys_NKD = keys[:, None].expand(-1, self.num_keys, -1) if keys.ndim == 2 else keys
        if keys_NKD.shape[1] != self.num_keys:
            raise MethodError(
                f"memory bank: memories come with {keys_NKD.shape[1]} keys each, this bank has {self.num_keys} a "
                "memory; write as many"
            )
        for memory_id, key_KD, value in zip(ids, keys_NKD, values_ND, strict=True):
            for vectors_ND in (key_KD, value):
                if vectors_ND.shape[-1:] != self.center_D.shape:
                    raise MethodError(
                        f"memory bank: the vector of {memory_id!r} has width {vectors_ND.shape[-1]}, this model "
                        f"needs {self.center_D.shape[0]}; extract it again with this model"
                    )
                check_vectors(memory_id, vectors_ND)
        for memory_id, text, key_KD, value in zip(ids, texts, keys_NKD, values_ND, strict=True):
            key_1KD = F.normalize(key_KD.float(), dim=-1)[None].to(self.keys_MKD.device)
            fed_PD = value.float().reshape(-1, value.shape[-1]).to(self.keys_MKD.device)
            value_1D = F.normalize(fed_PD[:1], dim=-1)
            self.several.pop(memory_id, None)
            if value.ndim == 2:
                self.several[memory_id] = fed_PD.clone()
            if memory_id in self.ids:
                row = self.index(memory_id)
                self.texts[row] = text
                self.keys_MKD[row], self.values_MD[row] = key_1KD[0], value_1D[0]
            else:
                self.ids.append(memory_id)
                self.texts.append(text)
                self.keys_MKD = torch.cat([self.keys_MKD, key_1KD])
                self.values_MD = torch.cat([self.values_MD, value_1D])

    def forget(self, ids: Sequence[str]) -> None:
        """Removes memories exactly, all their keys with them.

        An unknown id raises MethodError and nothing is removed.
        """
        unknown = [i for i in ids if i not in self.ids]
        if unknown:
            raise MethodError(f"memory bank: cannot forget {unknown[0]!r}: no memory has that id")
        keep = [row for row, memory_id in enumerate(self.ids) if memory_id not in set(ids)]
        self.ids = [self.ids[row] for row in keep]
        self.texts = [self.texts[row] for row in keep]
        self.keys_MKD, self.values_MD = self.keys_MKD[keep], self.values_MD[keep]
        self.several = {i: fed_PD for i, fed_PD in self.several.items() if i not in set(ids)}

    def nearest(self, key_D: Tensor, least_cosine: float) -> int | None:
        """Row of the memory whose whole text's key is nearest, if so near; the null memory does not count."""
        real = [row for row, memory_id in enumerate(self.ids) if memory_id != NULL_ID]
        if not real:
            return None
        best, nearest = (self.keys_MD[real] @ key_D).max(dim=-1)
        return real[int(nearest)] if float(best) >= least_cosine else None

    @property
    def num_vectors(self) -> int:
        """P: how many vectors are fed for a memory of the fit; 1 for an empty bank."""
        return len(self.memory_embeddings(0)) if self.ids else 1

    @property
    def values_MPD(self) -> Tensor:
        """Unit vectors of all that is fed, of memories with as many vectors each."""
        fed = [self.memory_embeddings(row) for row in range(len(self))]
        return F.normalize(torch.stack(fed), dim=-1)

    def take_values(self, values_MPD: Tensor) -> None:
        """Replaces what is fed for every memory by these unit vectors times the gain."""
        self.values_MD, self.several = values_MPD[:, 0].clone(), {}
        if values_MPD.shape[1] > 1:
            fed_MPD = values_MPD * self.gain
            self.several = {memory_id: fed_PD.clone() for memory_id, fed_PD in zip(self.ids, fed_MPD, strict=True)}

    def memory_head(self, query_BD: Tensor) -> Tensor:
        """(B, D) states of <recall> -> (B, M) cosines, raw: no temperature, no softmax."""
        return best_cosines(F.normalize(query_BD.float(), dim=-1), self.keys_MKD)

    def memory_embedding(self, index: int) -> Tensor:
        """(D,): what is fed in place of the pad token's embedding; of several vectors the first."""
        return self.memory_embeddings(index)[0]

    def memory_embeddings(self, index: int) -> Tensor:
        """(P, D): all that is fed for a memory, one vector in place of each pad."""
        several_PD = self.several.get(self.ids[index])
        return self.values_MD[index][None] * self.gain if several_PD is None else several_PD

    @property
    def embeddings_MD(self) -> Tensor:
        return self.values_MD * self.gain

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        keys = self.keys_MD if self.num_keys == 1 else self.keys_MKD
        tensors = {"keys": keys, "values": self.values_MD, "center": self.center_D}
        meta: dict[str, object] = {"ids": self.ids, "texts": self.texts}
        meta |= {"gain": self.gain, "fingerprint": self.fingerprint}
        if self.several:
            tensors["several"] = torch.cat(list(self.several.values()))
            meta["several"] = {memory_id: len(fed_PD) for memory_id, fed_PD in self.several.items()}
        if self.num_keys > 1 or self.several:  # else what a reader of the first format reads
            meta["format"] = FORMAT
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, str(folder / "bank.safetensors"))
        (folder / "bank.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, fingerprint: str, device: torch.device) -> MemoryBank:
        """Raises MethodError if the bank was made with another model or saved by a later version."""
        from safetensors.torch import load_file

        meta = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        if meta.get("format", 1) > FORMAT:
            raise MethodError(
                f"{folder}: this bank has format {meta['format']}, and this version of the program reads no later "
                f"one than {FORMAT}; update the program or fit again"
            )
        if meta["fingerprint"] != fingerprint:
            raise MethodError(
                f"{folder}: this bank was made with another model (fingerprint {meta['fingerprint']}, the loaded "
                f"model has {fingerprint}); load that model or write the memories again"
            )
        tensors = load_file(str(folder / "bank.safetensors"), device=str(device))
        keys = tensors["keys"]
        keys_MKD = keys[:, None] if keys.ndim == 2 else keys
        bank = cls(tensors["center"], meta["gain"], meta["fingerprint"], keys_MKD.shape[1])
        bank.ids, bank.texts = list(meta["ids"]), list(meta["texts"])
        bank.keys_MKD, bank.values_MD = keys_MKD, tensors["values"]
        counts: dict[str, int] = meta.get("several", {})
        if counts:
            parts = tensors["several"].split(list(counts.values()))
            bank.several = dict(zip(counts, parts, strict=True))
        return bank
