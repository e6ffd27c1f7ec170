"""Decoding with keys and values in tensors that stay where they are: a step is recorded once a shape and replayed.

`FixedModel` takes over behind a prefill what `methods.decode` does with a growing cache, and says the same tokens
up to rounding. Rows and places fed are powers of four, the cache one of few lengths; what fills up is seen by
nothing. Tensors and recordings are kept with the model, for its next answers.

Shapes: R rows, S places fed in one step, C places of the cache, T of them taken, H heads, W width of a head,
D hidden, V vocabulary.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from methods.graphs import Recorded, new_pool, next_size
from methods.packing import packs
from methods.prefixes import new_cache

SMALLEST = 256  # places of a cache
SHARE_KEPT = 4  # the part of a card's memory, as its divisor, that all kept caches may take
KEPT_ON_HOST = 2**30  # bytes, likewise

Fed = tuple[int, Tensor | None]  # a token, and what is fed in place of its embedding
Steps = Recorded[tuple[Tensor, Tensor]]
Layers = Sequence[tuple[Tensor, Tensor]]  # keys and values (R, H, C, W) of each


def power_of_four(size: int) -> int:
    """The least that is not below `size`."""
    return int(4 ** -(-(size - 1).bit_length() // 2))


@contextmanager
def last_hidden_states(model: Any) -> Iterator[dict[str, Tensor]]:
    """Catches what enters the output head: last hidden states (R, S, D), at no cost and for any architecture."""
    seen: dict[str, Tensor] = {}

    def keep(_module: Any, args: tuple[Tensor, ...]) -> None:
        seen["hidden"] = args[0]

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass
class _Inputs:
    """What a step reads."""

    ids_RS: Tensor
    positions_RS: Tensor
    places_S: Tensor  # of the cache
    seen_RC: Tensor  # tokens of the row
    vectors_RSD: Tensor
    fed_RS: Tensor  # whether the vector stands there in place of the token's embedding


@lru_cache
def _layer_class() -> type:
    from transformers.cache_utils import DynamicLayer  # takes seconds

    class FixedLayer(DynamicLayer):
        """A layer's keys and values: what comes is written to the places that the step names."""

        def __init__(self, keys: Tensor, values: Tensor, buffers: _Buffers) -> None:
            super().__init__()
            self.keys, self.values, self.buffers = keys, values, buffers
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            assert self.keys is not None
            assert self.values is not None
            self.keys.index_copy_(2, self.buffers.places_S, key_states)
            self.values.index_copy_(2, self.buffers.places_S, value_states)
            return self.keys, self.values

    return FixedLayer


class _Buffers:
    """A cache of R rows and C places, and the steps on it by the number of places they feed."""

    def __init__(self, model: Any, like: Layers, rows: int, length: int, pool: Any) -> None:
        self._model = weakref.ref(model)  # else a model that is kept by what it keeps would never go
        self.rows, self.length, self._pool = rows, length, pool

        def zeros(side: Tensor) -> Tensor:
            return side.new_zeros(rows, side.shape[1], length, side.shape[3])

        self.layers = [(zeros(keys), zeros(values)) for keys, values in like]
        self.cache = new_cache(model)
        self.cache.layers = [_layer_class()(keys, values, self) for keys, values in self.layers]
        self.places_S: Tensor = torch.empty(0)
        self._steps: dict[int, tuple[_Inputs, Steps]] = {}

    @property
    def num_bytes(self) -> int:
        return sum(side.nbytes for pair in self.layers for side in pair)

    def copy(self, layers: Layers, rows: Sequence[int], taken: int) -> None:
        """These rows of another cache become the first ones."""
        for own, other in zip(self.layers, layers, strict=True):
            index = torch.tensor(rows, device=own[0].device)
            for side, given in zip(own, other, strict=True):
                side[: len(rows), :, :taken] = given[:, :, :taken].index_select(0, index)

    def step(self, width: int) -> tuple[_Inputs, Steps]:
        if width not in self._steps:
            model = self._model()
            assert model is not None
            weight = model.get_input_embeddings().weight
            device, shape = weight.device, (self.rows, width)
            inputs = _Inputs(
                torch.zeros(shape, dtype=torch.long, device=device),
                torch.zeros(shape, dtype=torch.long, device=device),
                torch.zeros(width, dtype=torch.long, device=device),
                torch.zeros(self.rows, self.length, dtype=torch.bool, device=device),
                torch.zeros(*shape, weight.shape[1], dtype=weight.dtype, device=device),
                torch.zeros(shape, dtype=torch.bool, device=device),
            )
            recorded = Recorded(partial(self._compute, inputs), device, "a decoding step", self._pool)
            self._steps[width] = inputs, recorded
        return self._steps[width]

    def _compute(self, inputs: _Inputs) -> tuple[Tensor, Tensor]:
        """-> logits (R, S, V) and last hidden states (R, S, D)."""
        model: Any = self._model()
        self.places_S = inputs.places_S
        embeds_RSD = model.get_input_embeddings()(inputs.ids_RS)
        embeds_RSD = torch.where(inputs.fed_RS[..., None], inputs.vectors_RSD, embeds_RSD)
        place_C = torch.arange(self.length, device=embeds_RSD.device)
        sees_RSC = inputs.seen_RC[:, None] & (place_C <= inputs.places_S[:, None])
        hidden_value = torch.finfo(embeds_RSD.dtype).min
        mask_RSC = torch.zeros_like(sees_RSC, dtype=embeds_RSD.dtype).masked_fill(~sees_RSC, hidden_value)
        with last_hidden_states(model) as seen:
            outputs = model(
                inputs_embeds=embeds_RSD,
                attention_mask=mask_RSC[:, None],  # a mask of four dimensions is taken as it is
                position_ids=inputs.positions_RS,
                past_key_values=self.cache,
                use_cache=True,
                return_dict=True,
            )
        return outputs.logits, seen["hidden"]


@dataclass
class _Kept:
    """What a model keeps from answer to answer."""

    weights: tuple[int, ...]  # where they lie: recordings read them there
    pool: Any
    buffers: dict[tuple[int, int], _Buffers] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, model: Any, like: Layers, rows: int, length: int) -> _Buffers:
        if (rows, length) not in self.buffers:
            new = _Buffers(model, like, rows, length, self.pool)
            if new.num_bytes + sum(b.num_bytes for b in self.buffers.values()) > _room(like[0][0].device):
                self.buffers.clear()
                gc.collect()  # they hold each other
            self.buffers[rows, length] = new
        return self.buffers[rows, length]


_kept: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def release() -> None:
    """Lets go of all caches and recordings: they are made again when they are needed."""
    _kept.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return KEPT_ON_HOST
    return int(torch.cuda.get_device_properties(device).total_memory) // SHARE_KEPT


def _kept_of(model: Any) -> _Kept:
    weights = tuple(p.data_ptr() for p in model.parameters())
    kept = _kept.get(model)
    if kept is None or kept.weights != weights:
        kept = _kept[model] = _Kept(weights, new_pool(model.device))
    return kept


class FixedModel:
    """A model with a prefilled cache of fixed size, and what each row may see of it."""

    def __init__(self, kept: _Kept, model: Any, cache: Any, mask_RT: Tensor, room: int, forwards: int) -> None:
        """room: places that the answers will take."""
        self._kept, self._model = kept, model
        self.forwards, self.hidden = forwards, torch.empty(0)
        num_rows, self._taken = mask_RT.shape
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._slots = list(range(num_rows))  # of each row, in the buffers
        self._buffers = kept.get(model, layers, power_of_four(num_rows), next_size(self._taken + room, SMALLEST))
        self._buffers.copy(layers, self._slots, self._taken)
        self._seen_RC = self._nothing_seen()
        self._seen_RC[:num_rows, : self._taken] = mask_RT.cpu().bool()

    @classmethod
    def behind(cls, model: Any, cache: Any, mask_RT: Tensor, room: int, forwards: int) -> FixedModel | None:
        """None where the model takes no such cache, it were too large, or another thread is at work with it."""
        layers = getattr(cache, "layers", [])
        if not packs(model) or any(getattr(layer, "keys", None) is None for layer in layers):
            return None
        places = power_of_four(len(mask_RT)) * next_size(mask_RT.shape[1] + room, SMALLEST)
        per_place = sum(side[:1, :, :1].nbytes for layer in layers for side in (layer.keys, layer.values))
        if places * per_place > _room(mask_RT.device):
            return None
        kept = _kept_of(model)
        if not kept.lock.acquire(blocking=False):
            return None
        try:
            return cls(kept, model, cache, mask_RT, room, forwards)
        except BaseException:
            kept.lock.release()
            raise

    def close(self) -> None:
        self._kept.lock.release()

    def _nothing_seen(self) -> Tensor:
        """On the host. Rows that fill up see one place: a row without any would have no attention."""
        seen_RC = torch.zeros(self._buffers.rows, self._buffers.length, dtype=torch.bool)
        seen_RC[:, 0] = True
        seen_RC[self._slots] = False
        return seen_RC

    def step(self, fed: Sequence[Sequence[Fed]]) -> Tensor:
        """Each row's tokens, or vectors in place of their embeddings -> logits (rows, S, V)."""
        width = max(map(len, fed))
        places = power_of_four(width)
        if self._taken + places > self._buffers.length:
            self._move(self._slots, self._buffers.rows, next_size(self._taken + places, SMALLEST))
        inputs, recorded = self._buffers.step(places)
        ids = [[0] * places] * self._buffers.rows  # a row that fills up feeds something
        for slot, items in zip(self._slots, fed, strict=True):
            ids[slot] = [token for token, _ in items] + [0] * (places - len(items))
        place_S = torch.arange(places)
        lengths_R1 = torch.tensor([len(items) for items in fed])[:, None]
        positions_RS = torch.zeros(self._buffers.rows, places, dtype=torch.long)
        starts_R1 = self._seen_RC[self._slots].sum(dim=1, keepdim=True)
        positions_RS[self._slots] = starts_R1 + torch.minimum(place_S, lengths_R1 - 1)
        self._seen_RC[self._slots, self._taken : self._taken + width] = place_S[:width] < lengths_R1
        vectors = [
            (slot, place, vector)
            for slot, items in zip(self._slots, fed, strict=True)
            for place, (_, vector) in enumerate(items)
            if vector is not None
        ]
        fed_RS = torch.zeros(self._buffers.rows, places, dtype=torch.bool)
        if vectors:
            slots, at, found = zip(*vectors, strict=True)
            fed_RS[list(slots), list(at)] = True
            inputs.vectors_RSD[list(slots), list(at)] = torch.stack(found).to(inputs.vectors_RSD)
        for there, here in (
            (inputs.ids_RS, torch.tensor(ids)),
            (inputs.positions_RS, positions_RS),
            (inputs.places_S, self._taken + place_S),
            (inputs.seen_RC, self._seen_RC),
            (inputs.fed_RS, fed_RS),
        ):
            there.copy_(here, non_blocking=True)
        logits_RSV, hidden_RSD = recorded()
        self.forwards += 1
        self._taken += width
        if len(self._slots) < self._buffers.rows:
            index = torch.tensor(self._slots, device=logits_RSV.device)
            logits_RSV, hidden_RSD = logits_RSV[index], hidden_RSD[index]
        self.hidden = hidden_RSD[:, :width]
        return logits_RSV[:, :width]

    def keep(self, kept: Sequence[int], width: int) -> None:
        """Of the last `width` places only each row's first `kept` stay in sight; what none keeps is free again."""
        begin = self._taken - width
        self._seen_RC[self._slots, begin : self._taken] &= torch.arange(width) < torch.tensor(kept)[:, None]
        self._taken = begin + max(kept)

    def only(self, rows: Sequence[int]) -> None:
        """The other rows have stopped: they see nothing, and once most are gone nothing is computed for them."""
        left = [self._slots[row] for row in rows]
        if power_of_four(len(left)) < self._buffers.rows:
            self._move(left, power_of_four(len(left)), self._buffers.length)
            return
        gone = sorted(set(self._slots) - set(left))
        self._seen_RC[gone] = False
        self._seen_RC[gone, 0] = True
        self._slots = left

    def _move(self, slots: Sequence[int], rows: int, length: int) -> None:
        """These rows of the cache into one of another size."""
        old, seen_RC = self._buffers, self._seen_RC
        self._buffers = self._kept.get(self._model, old.layers, rows, length)
        self._buffers.copy(old.layers, slots, self._taken)
        self._slots = list(range(len(slots)))
        self._seen_RC = self._nothing_seen()
        self._seen_RC[: len(slots), : self._taken] = seen_RC[list(slots), : self._taken]

    @property
    def kv_bytes(self) -> int:
        """Exact bytes of the rows' keys and values."""
        per_place = self._buffers.num_bytes // (self._buffers.rows * self._buffers.length)
        return per_place * len(self._slots) * self._taken
