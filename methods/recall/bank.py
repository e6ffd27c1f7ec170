"""The memory bank and its head: the mirror of the token embedding and of `lm_head`.

`memory head`: hidden state of <recall> -> one matmul over L2-normalised vectors -> raw logits, no softmax
(specification 3.2). `memory embedding`: the chosen vector, times the gain, is the next input embedding
(specification 3.4).

Shapes: B batch, D hidden, M memories.
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


def check_entries(ids: Sequence[str], texts: Sequence[str]) -> None:
    """Raises MethodError for two memories with one id or a memory without text: before anything is trained."""
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if list(ids).count(i) > 1)
        raise MethodError(f"memory bank: two memories have the id {twice!r}; give each its own id")
    for memory_id, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise MethodError(f"memory bank: memory {memory_id!r} has no text; remove it or fill it in")


class MemoryBank:
    """Memory ids, texts, unit key vectors (M, D) and injected value vectors (M, D), in one order.

    center_D is subtracted from raw vectors before they are normalised: last-layer states of any two texts
    have cosines near 1, and centring spreads them (Ethayarajh 2019, arXiv:1909.00512). Zero: the
    specification's plain vectors. It is fitted once and then frozen, so that later writes land in the same
    space. Queries are not centred: training makes them fit the keys.
    """

    def __init__(self, center_D: Tensor, gain: float, fingerprint: str) -> None:
        self.center_D = center_D.float()
        self.gain = gain
        self.fingerprint = fingerprint
        self.ids: list[str] = []
        self.texts: list[str] = []
        width = center_D.shape[0]
        self.keys_MD = torch.empty(0, width, device=center_D.device)
        self.values_MD = torch.empty(0, width, device=center_D.device)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values; tied vectors count once."""
        tied = self.keys_MD.shape == self.values_MD.shape and torch.equal(self.keys_MD, self.values_MD)
        return self.keys_MD.numel() * self.keys_MD.element_size() * (1 if tied else 2)

    def index(self, memory_id: str) -> int:
        return self.ids.index(memory_id)

    def normalise(self, raw_ND: Tensor) -> Tensor:
        """Raw last-token states -> unit vectors of the bank's space."""
        return F.normalize(raw_ND.float().to(self.center_D.device) - self.center_D, dim=-1)

    def write(self, ids: Sequence[str], texts: Sequence[str], keys_ND: Tensor, values_ND: Tensor) -> None:
        """Adds memories, or replaces those whose id is known. Vectors are L2-normalised at write.

        Raises MethodError for an empty text, two memories with one id, a wrong width, or NaN.
        """
        check_entries(ids, texts)
        for memory_id, key_D, value_D in zip(ids, keys_ND, values_ND, strict=True):
            for vector_D in (key_D, value_D):
                if vector_D.shape != self.center_D.shape:
                    raise MethodError(
                        f"memory bank: the vector of {memory_id!r} has width {vector_D.shape[-1]}, this model "
                        f"needs {self.center_D.shape[0]}; extract it again with this model"
                    )
                if not torch.isfinite(vector_D).all() or vector_D.norm() == 0:
                    raise MethodError(
                        f"memory bank: the vector of {memory_id!r} is zero or holds NaN or infinity; "
                        "extract it again"
                    )
        for memory_id, text, key_D, value_D in zip(ids, texts, keys_ND, values_ND, strict=True):
            key_1D = F.normalize(key_D.float(), dim=-1)[None].to(self.keys_MD.device)
            value_1D = F.normalize(value_D.float(), dim=-1)[None].to(self.keys_MD.device)
            if memory_id in self.ids:
                row = self.index(memory_id)
                self.texts[row] = text
                self.keys_MD[row], self.values_MD[row] = key_1D[0], value_1D[0]
            else:
                self.ids.append(memory_id)
                self.texts.append(text)
                self.keys_MD = torch.cat([self.keys_MD, key_1D])
                self.values_MD = torch.cat([self.values_MD, value_1D])

    def forget(self, ids: Sequence[str]) -> None:
        """Removes memories exactly. An unknown id raises MethodError and nothing is removed."""
        unknown = [i for i in ids if i not in self.ids]
        if unknown:
            raise MethodError(f"memory bank: cannot forget {unknown[0]!r}: no memory has that id")
        keep = [row for row, memory_id in enumerate(self.ids) if memory_id not in set(ids)]
        self.ids = [self.ids[row] for row in keep]
        self.texts = [self.texts[row] for row in keep]
        self.keys_MD, self.values_MD = self.keys_MD[keep], self.values_MD[keep]

    def nearest_values(self, keys_ND: Tensor, least_cosine: float) -> Tensor:
        """(N, D): for each key the value of the memory with the nearest one, or the key itself where none is near.

        The null memory does not count.
        """
        real = [row for row, memory_id in enumerate(self.ids) if memory_id != NULL_ID]
        if not real:
            return keys_ND.clone()
        best_N, index_N = (keys_ND @ self.keys_MD[real].T).max(dim=-1)
        return torch.where((best_N >= least_cosine)[:, None], self.values_MD[real][index_N], keys_ND)

    def memory_head(self, query_BD: Tensor) -> Tensor:
        """(B, D) states of <recall> -> (B, M) cosines, raw: no temperature, no softmax."""
        return F.normalize(query_BD.float(), dim=-1) @ self.keys_MD.T

    def memory_embedding(self, index: int) -> Tensor:
        """(D,): what is fed in place of the pad token's embedding."""
        return self.values_MD[index] * self.gain

    @property
    def embeddings_MD(self) -> Tensor:
        return self.values_MD * self.gain

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"keys": self.keys_MD, "values": self.values_MD, "center": self.center_D}
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, str(folder / "bank.safetensors"))
        meta = {"ids": self.ids, "texts": self.texts, "gain": self.gain, "fingerprint": self.fingerprint}
        (folder / "bank.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, fingerprint: str, device: torch.device) -> MemoryBank:
        """Raises MethodError if the bank was made with another model."""
        from safetensors.torch import load_file

        meta = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        if meta["fingerprint"] != fingerprint:
            raise MethodError(
                f"{folder}: this bank was made with another model (fingerprint {meta['fingerprint']}, the loaded "
                f"model has {fingerprint}); load that model or write the memories again"
            )
        tensors = load_file(str(folder / "bank.safetensors"), device=str(device))
        bank = cls(tensors["center"], meta["gain"], meta["fingerprint"])
        bank.ids, bank.texts = list(meta["ids"]), list(meta["texts"])
        bank.keys_MD, bank.values_MD = tensors["keys"], tensors["values"]
        return bank
