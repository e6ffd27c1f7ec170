"""Beginnings of sequences, computed once: a conversation's next prompt starts as its last one did.

`with reusing(Prefixes()):` every generation in the block goes on from what the one before it computed, and what is
new is computed in rows of similar length. Keys and values of a token depend on what stands before it alone, so the
answers are those of a fresh start, up to rounding. Nothing is reused where answers are timed: there every question
is paid for whole; nor where decoding is recorded (methods.graphs): a card computes prompts anew in less time.

Shapes: B rows, T tokens, H heads, W width of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from operator import eq
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from methods.base import MethodError

T = TypeVar("T")
MIN_SHARED = 64  # tokens that a whole batch must have in common for a forward of their own
MAX_TOKENS = 1024  # of a forward with several rows, padding included: long rows would pad short ones
MAX_TOKENS_CUDA = 2**16  # there a forward takes as long for many tokens as for few
MAX_KEPT_BYTES = 2**31  # of keys and values between generations


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    return sum(1 for _ in takewhile(bool, map(eq, first, second)))


@dataclass(frozen=True)
class Prefix:
    """The beginning of one sequence."""

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]  # keys and values (H, T, W) of each layer

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def first(self, length: int) -> Prefix:
        return Prefix(
            self.ids[:length], tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        )


def new_cache(model: Any) -> Any:
    """An empty cache of the kinds of layers that the model has."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def cut_prefixes(cache: Any, mask_BT: Tensor, sequences: Sequence[Sequence[int]]) -> list[Prefix]:
    """What a forward left in its cache, row by row. mask: where each row's own tokens stand in the cache.

    Raises MethodError for a cache that does not hold every token.
    """
    for layer in cache.layers:
        keys = getattr(layer, "keys", None)
        if keys is None or keys.shape[-2] != mask_BT.shape[1]:
            raise MethodError(
                f"the model's cache does not hold all of {mask_BT.shape[1]} tokens (a sliding window or a running "
                "state), so nothing can be computed behind them; take shorter texts or a model of full attention"
            )
    rows = []
    for row, ids in enumerate(sequences):
        own = mask_BT[row].nonzero().squeeze(1)
        layers = (
            (layer.keys[row].index_select(1, own), layer.values[row].index_select(1, own))
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


def lay_out(
    sequences: Sequence[Sequence[int]], starts: Sequence[int], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token rows (B, T) and their mask: of each sequence the first `starts` tokens, then the rest.

    Both are padded on the left: the cache of a batch of beginnings is one rectangle and what follows is another,
    `[pad a b | pad c]`.
    """

    def padded(parts: Sequence[Sequence[int]], value: int) -> Tensor:
        rows = [torch.tensor(part, dtype=torch.long) for part in parts]
        return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")

    pairs = list(zip(sequences, starts, strict=True))
    sides = [ids[:start] for ids, start in pairs], [ids[start:] for ids, start in pairs]
    ids_BT = torch.cat([padded(side, pad) for side in sides], dim=1)
    mask_BT = torch.cat([padded([[1] * len(part) for part in side], 0) for side in sides], dim=1)
    return ids_BT.to(device), mask_BT.to(device)


@torch.no_grad()
def compute_prefixes(
    model: Any, sequences: Sequence[Sequence[int]], begun: Sequence[Prefix] | None = None
) -> list[Prefix]:
    """Each sequence whole, behind what is computed of it. begun: a beginning of each; None: nothing is."""
    starts = [len(prefix) for prefix in begun] if begun else [0] * len(sequences)
    found: list[Prefix] = list(begun) if begun else [Prefix((), ())] * len(sequences)

    def rest(row: int) -> int:
        return len(sequences[row]) - starts[row]

    most = MAX_TOKENS if model.device.type == "cpu" else MAX_TOKENS_CUDA
    waiting = sorted((row for row in range(len(sequences)) if rest(row)), key=rest)
    while waiting:
        count = 1
        while count < len(waiting) and (count + 1) * rest(waiting[count]) <= most:
            count += 1
        rows, waiting = waiting[:count], waiting[count:]
        cache = join_prefixes(model, [begun[row] for row in rows]) if begun else new_cache(model)
        past = cache.get_seq_length()
        ids_BT, mask_BT = lay_out(
            [sequences[row] for row in rows], [starts[row] for row in rows], pad=0, device=model.device
        )
        model.base_model(
            input_ids=ids_BT[:, past:],
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(dim=-1) - 1).clamp(min=0)[:, past:],
            past_key_values=cache,
            use_cache=True,
        )
        for row, prefix in zip(rows, cut_prefixes(cache, mask_BT, [sequences[row] for row in rows]), strict=True):
            found[row] = prefix
    return found


# Their attention counts places, of a cache or a row where other tokens stand between, not positions.
COUNTS_PLACES = frozenset({"gpt_neo"})


def keeps_every_token(model: Any) -> bool:
    """Whether keys and values of all tokens stay, by position: a sliding window or a running state keeps fewer."""
    from transformers.cache_utils import DynamicLayer

    return (
        model._supports_default_dynamic_cache()
        and model.config.model_type not in COUNTS_PLACES
        and "position_ids" in inspect.signature(model.base_model.forward).parameters
        and all(type(layer) is DynamicLayer for layer in new_cache(model).layers)
    )


@dataclass
class Prefixes:
    """The prompts of the last generation, for the next one with the same model."""

    _model: Any = None
    _kept: list[Prefix] = field(default_factory=list)

    def compute(self, model: Any, prompts: Sequence[Sequence[int]]) -> list[Prefix] | None:
        """Each prompt but for its last token, whose logits begin the answer. None: it cannot be done apart."""
        if not keeps_every_token(model) or min(map(len, prompts)) < 2:
            return None
        if model is not self._model:
            self._model, self._kept = model, []
        begins = [tuple(prompt[:-1]) for prompt in prompts]
        shared = begins[0][: min(common_length(begins[0], begin) for begin in begins)]
        known = [self._longest(shared)] if self._kept else None
        if len(prompts) > 1 and len(shared) - (len(known[0]) if known else 0) >= MIN_SHARED:
            self._kept += compute_prefixes(model, [shared], known)
        begun = [self._longest(begin) for begin in begins] if self._kept else None
        found = compute_prefixes(model, begins, begun)
        self._kept = found if sum(prefix.num_bytes for prefix in found) <= MAX_KEPT_BYTES else []
        return found

    def _longest(self, ids: Sequence[int]) -> Prefix:
        """The longest beginning of a sequence that is at hand; it may have no token."""
        lengths = [common_length(prefix.ids, ids) for prefix in self._kept]
        return self._kept[lengths.index(max(lengths))].first(max(lengths))


_current: ContextVar[Prefixes | None] = ContextVar("prefixes", default=None)


@contextmanager
def within(variable: ContextVar[T], value: T) -> Iterator[None]:
    """The variable has this value in the block, for this thread alone."""
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)


def reusing(prefixes: Prefixes) -> AbstractContextManager[None]:
    """Every generation that this thread starts in the block reuses and keeps prefixes."""
    return within(_current, prefixes)


def current_prefixes() -> Prefixes | None:
    """Those of the `reusing` block around the call."""
    return _current.get()
