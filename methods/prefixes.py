"""Beginnings that sequences share, computed once: a conversation's next prompt starts as its last one did.

`with reusing(Prefixes()):` every generation in the block goes on from what the one before it computed. Keys and
values of a token depend on what stands before it alone, so the answers are those of a fresh start, up to rounding.
Where answers are timed nothing is reused: every question is then paid for whole.

Shapes: B rows, T tokens, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_SHARED = 64  # tokens that a whole batch must have in common for a forward of their own


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


@dataclass(frozen=True)
class Prefix:
    """The beginning of one sequence."""

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]  # keys and values (H, T, W) of each layer

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> Prefix:
        return Prefix(
            self.ids[:length], tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        )


def new_cache(model: Any) -> Any:
    """An empty cache of the kinds of layers that the model has."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def cut_prefixes(cache: Any, mask_BT: Tensor, sequences: Sequence[Sequence[int]]) -> list[Prefix]:
    """What a forward left in its cache, row by row. mask: where each row's own tokens stand in the cache."""
    rows = []
    for row, ids in enumerate(sequences):
        own = mask_BT[row].bool()
        layers = (
            (layer.keys[row, :, : len(own)][:, own], layer.values[row, :, : len(own)][:, own])
            for layer in cache.layers
        )
        rows.append(Prefix(tuple(ids), tuple(layers)))
    return rows


def join_prefixes(model: Any, prefixes: Sequence[Prefix]) -> Any:
    """One cache for a batch that goes on behind these beginnings, which are padded on the left."""
    cache = new_cache(model)
    width = max(map(len, prefixes))
    for index, layer in enumerate(zip(*(prefix.layers for prefix in prefixes), strict=True)):
        keys, values = (
            torch.stack([F.pad(part[which], (0, 0, width - part[which].shape[-2], 0)) for part in layer])
            for which in (0, 1)
        )
        cache.update(keys, values, index)
    return cache


def _is_plain(cache: Any) -> bool:
    """Whether every layer keeps each token's keys and values: a sliding window or a running state does not."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)


@dataclass
class Prefixes:
    """The prompts of the last generation, for the next one with the same model."""

    num_reused: int = 0  # tokens that were not computed again, over all generations
    _model: Any = None
    _kept: list[Prefix] = field(default_factory=list)

    @torch.no_grad()
    def find(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[Prefix] | None:
        """For each prompt the longest beginning at hand, at least one token short of it; None: there is none."""
        if model is not self._model or not self._kept:
            self._model, self._kept = model, []
        begins = [tuple(prompt[:-1]) for prompt in prompts]
        shared = begins[0][: min(common_length(begins[0], begin) for begin in begins)]
        known = max((common_length(prefix.ids, shared) for prefix in self._kept), default=0)
        if len(prompts) > 1 and len(shared) - known >= MIN_SHARED and _is_plain(new_cache(model)):
            ids = torch.tensor([shared], device=model.device)
            cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
            self._kept += cut_prefixes(cache, torch.ones_like(ids), [shared])
        if not self._kept:
            return None
        found = []
        for begin in begins:
            lengths = [common_length(prefix.ids, begin) for prefix in self._kept]
            found.append(self._kept[lengths.index(max(lengths))].first(max(lengths)))
        self.num_reused += sum(map(len, found))
        return found if any(map(len, found)) else None

    def keep(self, cache: Any, mask_BT: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        """Keeps the prompts' part of a generation's cache in place of what was kept before."""
        whole = _is_plain(cache) and all(layer.is_initialized for layer in cache.layers)
        self._kept = cut_prefixes(cache, mask_BT, prompts) if whole else []


_current: ContextVar[Prefixes | None] = ContextVar("prefixes", default=None)


@contextmanager
def reusing(prefixes: Prefixes) -> Iterator[None]:
    """Every generation that this thread starts in the block reuses and keeps prefixes."""
    before = _current.set(prefixes)
    try:
        yield
    finally:
        _current.reset(before)


def current_prefixes() -> Prefixes | None:
    """Those of the `reusing` block around the call."""
    return _current.get()


def lay_out(
    prompts: Sequence[Sequence[int]], starts: Sequence[int], pad: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token rows and their masks: each prompt's first `starts` tokens, then the rest, both padded on the left.

    The cache of a batch of beginnings is one rectangle and what follows is another: `[pad a b | pad c]`.
    """

    def padded(parts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
        width = max(map(len, parts))
        gaps = [width - len(part) for part in parts]
        rows = [[pad] * gap + list(part) for gap, part in zip(gaps, parts, strict=True)]
        return rows, [[0] * gap + [1] * (width - gap) for gap in gaps]

    begun = padded([prompt[:start] for prompt, start in zip(prompts, starts, strict=True)])
    rest = padded([prompt[start:] for prompt, start in zip(prompts, starts, strict=True)])
    ids, mask = ([a + b for a, b in zip(*sides, strict=True)] for sides in zip(begun, rest, strict=True))
    return ids, mask
