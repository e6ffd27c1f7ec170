"""Samples -> batches, grouped by length, and a batch -> one row of tokens.

Shapes: N tokens of the row, B samples, T tokens of the longest, L learnt tokens, Q queries, I injections.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from methods.graphs import next_size
from methods.prefixes import common_length
from methods.samples import IGNORE, Sample

COARSE, FINE = 32, 8  # tokens: what sizes are rounded up to


@dataclass
class Batch:
    """Samples in a row on the device, what neighbours begin with once; N and L are filled up to round sizes."""

    input_ids_N: Tensor
    positions_N: Tensor  # of each token in its sample
    places_BT: Tensor  # of each sample's tokens in the row; behind its end any
    attention_mask_BT: Tensor
    back_N: Tensor  # of each token in the flattened (B, T); of what fills up any
    predicting_L: Tensor  # places of the states that predict the labels
    labels_L: Tensor
    weights_L: Tensor  # 0 of what fills up
    asking_Q: Tensor  # places of the states that are the queries
    memory_index_Q: Tensor
    injected_I: Tensor  # places of the first pads of the memories that are fed
    fed_index_I: Tensor
    lm_weight: float | Tensor  # what the token losses' weighted sum is divided by
    num_asked: float | Tensor  # what the retrieval losses' sum is divided by

    def tensors(self) -> dict[str, Tensor]:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            n: _near(t, device).to(device, non_blocking=True) for n, t in self.tensors().items()
        }
        return replace(self, **moved)

    def take(self, other: Batch) -> None:
        """Another batch of the same sizes, from the host, into these tensors."""
        given = other.tensors()
        for name, tensor in self.tensors().items():
            tensor.copy_(_near(given[name], tensor.device), non_blocking=True)


def _near(tensor: Tensor, device: torch.device) -> Tensor:
    """In memory from which a card copies while the host goes on."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


@dataclass(frozen=True)
class BatchShape:
    """Sizes that a batch is filled up to, so that few of them differ: a step of each is recorded (methods.graphs).

    Queries and injections that fill up ask for nothing and feed the row's last `num_pads` tokens, which nothing
    reads; samples that fill up are none.
    """

    tokens: int  # N
    samples: int  # B
    width: int  # T
    labels: int  # L
    queries: int  # Q
    injections: int  # I
    num_pads: int  # vectors of a memory


@dataclass(frozen=True)
class Counts:
    """What a batch's losses are divided by."""

    lm_weight: float
    num_asked: float


def round_up(size: int, multiple: int = COARSE) -> int:
    return -(-size // multiple) * multiple


def padding_multiple(dtype: torch.dtype, device: torch.device) -> int:
    """A CPU compiles its bf16 kernels anew for every shape, so few shapes are faster; others pay padding alone."""
    return COARSE if device.type == "cpu" and dtype is torch.bfloat16 else FINE


def shared_tokens(samples: Sequence[Sample]) -> list[int]:
    """How many tokens each sample begins with as the one before it does, before anything is fed to either.

    The last token of each is its own, and all of the first.
    """
    ends = [len(s) - 1 if s.pad_position < 0 else s.pad_position for s in samples]
    alike = [common_length(before.input_ids, sample.input_ids) for before, sample in pairwise(samples)]
    return [0, *map(min, alike, ends, ends[1:])]


def row_tokens(samples: Sequence[Sample]) -> int:
    """How many tokens a batch is computed on: what neighbours begin with counts once."""
    return sum(map(len, samples)) - sum(shared_tokens(samples))


def batch_shape(samples: Sequence[Sample], batch_tokens: int, has_memory: bool, num_pads: int) -> BatchShape:
    """The shape that a batch of about `batch_tokens` is computed in: powers of two and halves between them."""
    width = next_size(max(map(len, samples)), 2 * COARSE)
    narrowest = round_up(width * 2 // 3 + 1) if width > 2 * COARSE else COARSE
    rows = next_size(max(len(samples), batch_tokens // narrowest), 1)
    quarter = max(COARSE, batch_tokens // 4)
    tokens = row_tokens(samples) + num_pads
    labels = sum(len(sample.learnt) for sample in samples)
    return BatchShape(
        tokens=next_size(tokens, quarter),
        samples=rows,
        width=width,
        labels=next_size(labels, quarter) if labels else 0,
        queries=rows if has_memory else 0,
        injections=rows if num_pads else 0,
        num_pads=num_pads,
    )


def collate(
    samples: Sequence[Sample],
    pad_token_id: int,
    device: torch.device,
    multiple: int = COARSE,
    shape: BatchShape | None = None,
    whole: Counts | None = None,
) -> Batch:
    """multiple: of tokens, that sizes are filled up to; shape: to which they are instead. It changes no loss.

    whole: of the batch that these samples are a part of; None: they are all of it.
    """
    whole = whole or counts(samples)
    width = shape.width if shape else round_up(max(map(len, samples)), multiple)
    row: list[tuple[int, int, int]] = []  # id, position, place in (B, T)
    places: list[list[int]] = []
    for b, (sample, begin) in enumerate(zip(samples, shared_tokens(samples), strict=True)):
        before = places[-1][:begin] if b else []
        places.append([*before, *range(len(row), len(row) + len(sample) - begin)])
        row += [(sample.input_ids[n], n, b * width + n) for n in range(begin, len(sample))]
    placed = list(zip(samples, places, strict=True))
    learnt = [(place[n - 1], s.labels[n]) for s, place in placed for n in s.learnt]
    weights = [weight for s in samples for weight in _weights(s)]
    asked = [(place[s.recall_position], s.memory_index) for s, place in placed if s.asks]
    fed = [(place[s.pad_position], s.memory_index) for s, place in placed if s.pad_position >= 0]

    def columns(found: Sequence[tuple[int, ...]], fill: tuple[int, ...], size: int) -> Sequence[Tensor]:
        rows = torch.tensor([*found, *[fill] * (size - len(found))], dtype=torch.long, device=device)
        return rows.reshape(-1, len(fill)).unbind(dim=1)

    num_tokens, num_labels = round_up(len(row), multiple), round_up(len(learnt), multiple)
    num_asked, num_fed, last = len(asked), len(fed), 0
    if shape:
        num_tokens, num_labels, last = shape.tokens, shape.labels, shape.tokens - shape.num_pads
        num_asked, num_fed = shape.queries, shape.injections
        places += [[0]] * (shape.samples - len(samples))
    input_ids_N, positions_N, back_N = columns(row, (pad_token_id, 0, 0), num_tokens)
    predicting_L, labels_L = columns(learnt, (0, 0), num_labels)
    asking_Q, memory_index_Q = columns(asked, (0, IGNORE), num_asked)
    injected_I, fed_index_I = columns(fed, (last, 0), num_fed)
    weights_L = torch.zeros(len(labels_L))
    weights_L[: len(weights)] = torch.tensor(weights)
    return Batch(
        input_ids_N=input_ids_N,
        positions_N=positions_N,
        places_BT=torch.tensor([[*p, *[0] * (width - len(p))] for p in places], device=device),
        attention_mask_BT=torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in places], device=device),
        back_N=back_N,
        predicting_L=predicting_L,
        labels_L=labels_L,
        weights_L=weights_L.to(device),
        asking_Q=asking_Q,
        memory_index_Q=memory_index_Q,
        injected_I=injected_I,
        fed_index_I=fed_index_I,
        lm_weight=whole.lm_weight,
        num_asked=whole.num_asked,
    )


def _weights(sample: Sample) -> list[float]:
    """Of the learnt tokens' losses."""
    return [sample.loss_weights[n] if sample.loss_weights else 1.0 for n in sample.learnt]


def share_of(samples: Sequence[Sample], rank: int, world: int) -> list[Sample]:
    """What one of `world` processes computes of a batch, so that the mean of their gradients is the batch's own.

    Every process draws the same batch and takes each world-th sample. A process that gets nothing computes one
    without loss: the others wait for it.
    """
    nothing = replace(samples[0], labels=(IGNORE,) * len(samples[0]), recall_position=-1)
    return list(samples[rank::world]) or [nothing]


def counts(samples: Sequence[Sample], world: int = 1) -> Counts:
    """Of a batch that `world` processes share: of a world-th, since gradients are averaged over the processes."""
    return Counts(
        lm_weight=sum(weight for sample in samples for weight in _weights(sample)) / world,
        num_asked=sum(sample.asks for sample in samples) / world,
    )


def length_grouped(samples: Sequence[Sample], batch_tokens: int, rng: random.Random) -> list[list[Sample]]:
    """Shuffled batches of samples of similar length, each of at most `batch_tokens` with its padding.

    Batches are cut by tokens, not by samples, so that methods with long prompts take as many optimiser steps
    as the others. A single sample over the limit is a batch of its own.
    """
    shuffled = rng.sample(range(len(samples)), len(samples))
    order = sorted(shuffled, key=lambda n: -len(samples[n]) - rng.uniform(0, 12))
    batches: list[list[Sample]] = []
    start = 0
    while start < len(order):
        width = round_up(max(len(samples[n]) for n in order[start : start + 8]))
        size = max(1, batch_tokens // width)
        batches.append([samples[n] for n in order[start : start + size]])
        start += size
    rng.shuffle(batches)
    return batches
