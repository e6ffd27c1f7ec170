"""Samples -> batches of right-padded rows, grouped by length.

Shapes: B rows, T tokens, N labelled tokens, Q queries, I injections.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.chat import IGNORE, Sample

COARSE, FINE = 32, 8  # tokens: what widths are padded to

Spots = tuple[Tensor, Tensor]  # rows and places of some tokens: an index of a (B, T, ...) tensor


@dataclass
class Batch:
    """Right-padded rows on the device."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    predicting: Spots  # the states that predict the N labels
    labels_N: Tensor
    weights_N: Tensor
    asking: Spots  # the states that are the Q queries
    memory_index_Q: Tensor
    teacher_row_Q: Tensor  # -1: none
    injected: Spots  # the first pads of the I memories that are fed
    fed_index_I: Tensor
    num_tokens: int  # computed, without padding
    lm_weight: float  # what the token losses' weighted sum is divided by
    num_asked: float  # what the retrieval losses' sum is divided by


def round_up(size: int, multiple: int = COARSE) -> int:
    return -(-size // multiple) * multiple


def padding_multiple(dtype: torch.dtype, device: torch.device) -> int:
    """A CPU compiles its bf16 kernels anew for every shape, so few shapes are faster; others pay padding alone."""
    return COARSE if device.type == "cpu" and dtype is torch.bfloat16 else FINE


def collate(samples: Sequence[Sample], pad_token_id: int, device: torch.device, multiple: int = COARSE) -> Batch:
    """multiple: of tokens, that the widest row is padded to; it changes no loss."""
    width = round_up(max(map(len, samples)), multiple)
    learnt = [(b, n - 1, s.labels[n]) for b, s in enumerate(samples) for n in _learnt(s)]
    weights = [w for s in samples for w in _weights(s)]
    asked = [(b, s.recall_position, s.memory_index, s.teacher_row) for b, s in enumerate(samples) if _asks(s)]
    fed = [(b, s.pad_position, s.memory_index) for b, s in enumerate(samples) if s.pad_position >= 0]

    def padded(values: Iterable[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)

    def columns(found: Sequence[tuple[int, ...]], count: int) -> Sequence[Tensor]:
        return torch.tensor(found, dtype=torch.long, device=device).reshape(len(found), count).unbind(dim=1)

    learnt_row, learnt_place, labels_N = columns(learnt, 3)
    asked_row, asked_place, memory_index_Q, teacher_row_Q = columns(asked, 4)
    fed_row, fed_place, fed_index_I = columns(fed, 3)
    return Batch(
        input_ids_BT=padded((s.input_ids for s in samples), pad_token_id),
        attention_mask_BT=padded(([1] * len(s) for s in samples), 0),
        predicting=(learnt_row, learnt_place),
        labels_N=labels_N,
        weights_N=torch.tensor(weights, dtype=torch.float, device=device),
        asking=(asked_row, asked_place),
        memory_index_Q=memory_index_Q,
        teacher_row_Q=teacher_row_Q,
        injected=(fed_row, fed_place),
        fed_index_I=fed_index_I,
        num_tokens=sum(map(len, samples)),
        lm_weight=sum(weights),
        num_asked=len(asked),
    )


def _asks(sample: Sample) -> bool:
    """Whether it is a question with a memory to find."""
    return sample.recall_position >= 0 and sample.memory_index >= 0


def _learnt(sample: Sample) -> list[int]:
    """The labelled tokens; a sample's first token is never predicted."""
    return [n for n in range(1, len(sample)) if sample.labels[n] != IGNORE]


def _weights(sample: Sample) -> list[float]:
    """Of the labelled tokens' losses."""
    return [sample.loss_weights[n] if sample.loss_weights else 1.0 for n in _learnt(sample)]


def share_of(
    samples: Sequence[Sample], rank: int, world: int, pad_token_id: int, device: torch.device, multiple: int
) -> Batch:
    """What one of `world` processes computes of a batch, so that the mean of their gradients is the batch's own.

    Every process draws the same batch and takes each world-th sample. Its sums are divided as if it had a
    world-th of the whole, since gradients are averaged over the processes. A process that gets nothing computes a
    sample without loss: the others wait for it.
    """
    mine = list(samples[rank::world]) or [
        replace(samples[0], labels=(IGNORE,) * len(samples[0]), recall_position=-1)
    ]
    batch = collate(mine, pad_token_id, device, multiple)
    if world == 1:
        return batch
    return replace(
        batch,
        num_tokens=sum(map(len, samples)),
        lm_weight=sum(weight for sample in samples for weight in _weights(sample)) / world,
        num_asked=sum(map(_asks, samples)) / world,
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
