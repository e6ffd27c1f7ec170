"""Samples -> batches. Samples that begin alike stand in one row as a tree: what they share is computed once.

The turns of a dialogue are such samples: each prompt begins with the one before it, and what the model thinks is
in no history. In one row there is a trunk, the dialogue as its user sees it, and at each turn a branch with the
model's think and answer:

    system user1 header answer1 user2 header answer2 user3 header ...
                 |              |                 `- <think> ...
                 |              `- <think> ... </think> answer2
                 `- <think> ... </think> answer1

A token attends to its own sample's tokens alone and has its place in that sample as its position, so losses and
gradients are those of the samples one by one (tree attention; Miao et al. 2023, arXiv:2305.09781).

Shapes: B rows, T tokens, N labelled tokens, Q queries, I injections.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from methods.chat import IGNORE, Sample
from methods.prefixes import common_length, keeps_every_token

COARSE, FINE = 32, 8  # tokens: what widths are padded to
MIN_SHARED = 24  # tokens that a sample must share with a row to stand in it: more than a short system message

Spots = tuple[Tensor, Tensor]  # rows and places of some tokens: an index of a (B, T, ...) tensor


@dataclass
class Batch:
    """Right-padded rows on the device."""

    input_ids_BT: Tensor
    attention_mask: Tensor  # (B, T), or (B, T, T) of who attends to whom where samples share rows
    position_ids_BT: Tensor | None  # None: a token's position is its place
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


def can_share(model: Any) -> bool:
    """Whether a model takes positions and a mask of who attends to whom; a running state, for one, does not."""
    return model.config._attn_implementation in ("eager", "sdpa") and keeps_every_token(model)


@dataclass
class Row:
    """Samples as a tree of tokens."""

    input_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)  # of each sample's tokens

    def __len__(self) -> int:
        return len(self.input_ids)

    def shared(self, sample: Sample) -> tuple[int, int]:
        """(how many first tokens the sample has in common with one of the row's, which one)."""
        room = _bare(sample)
        lengths = [
            min(room, _bare(other), common_length(sample.input_ids, other.input_ids)) for other in self.samples
        ]
        most = max(lengths, default=0)
        return most, lengths.index(most) if most else -1

    def add(self, sample: Sample) -> None:
        most, branch = self.shared(sample)
        new = range(len(self), len(self) + len(sample) - most)
        self.places.append([*(self.places[branch][:most] if most else ()), *new])
        self.input_ids += sample.input_ids[most:]
        self.positions += range(most, len(sample))
        self.samples.append(sample)

    def mask(self, width: int) -> Tensor:
        """(width, width): which tokens a token attends to; padding attends to itself, or nothing would."""
        sees_TT = torch.eye(width, dtype=torch.bool)
        for places in self.places:
            at = torch.tensor(places)
            sees_TT[at[:, None], at] = torch.ones(len(at), len(at), dtype=torch.bool).tril()
        return sees_TT


def _bare(sample: Sample) -> int:
    """Tokens at a sample's beginning that are read alone: nothing is learnt or fed there."""
    first = next((n for n, label in enumerate(sample.labels) if label != IGNORE), len(sample))
    return first if sample.pad_position < 0 else min(first, sample.pad_position)


def lay_out(samples: Sequence[Sample], sharing: bool = True) -> list[Row]:
    """Rows that hold every sample: each where it shares most, if that is at least MIN_SHARED tokens."""
    rows: list[Row] = []
    for sample in samples:
        shares = [row.shared(sample)[0] for row in rows] if sharing else []
        most = max(shares, default=0)
        if most >= MIN_SHARED:
            rows[shares.index(most)].add(sample)
        else:
            rows.append(Row())
            rows[-1].add(sample)
    return rows


def collate(
    samples: Sequence[Sample],
    pad_token_id: int,
    device: torch.device,
    multiple: int = COARSE,
    sharing: bool = False,
) -> Batch:
    """multiple: of tokens, that the widest row is padded to. sharing: rows may hold several samples. Neither
    changes a loss.
    """
    rows = lay_out(samples, sharing)
    width = round_up(max(map(len, rows)), multiple)
    placed = [
        (b, s, places) for b, row in enumerate(rows) for s, places in zip(row.samples, row.places, strict=True)
    ]
    learnt = [(b, places[n - 1], s.labels[n]) for b, s, places in placed for n in _learnt(s)]
    weights = [w for _, s, _ in placed for w in _weights(s)]
    asked = [(b, places[s.recall_position], s.memory_index, s.teacher_row) for b, s, places in placed if _asks(s)]
    fed = [
        (b, places[s.pad_position], s.memory_index if s.fed_index < 0 else s.fed_index)
        for b, s, places in placed
        if s.pad_position >= 0
    ]

    def padded(values: Iterable[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)

    def columns(found: Sequence[tuple[int, ...]], count: int) -> Sequence[Tensor]:
        return torch.tensor(found, dtype=torch.long, device=device).reshape(len(found), count).unbind(dim=1)

    learnt_row, learnt_place, labels_N = columns(learnt, 3)
    asked_row, asked_place, memory_index_Q, teacher_row_Q = columns(asked, 4)
    fed_row, fed_place, fed_index_I = columns(fed, 3)
    tree = any(len(row.samples) > 1 for row in rows)
    return Batch(
        input_ids_BT=padded((row.input_ids for row in rows), pad_token_id),
        attention_mask=torch.stack([row.mask(width) for row in rows]).to(device)
        if tree
        else padded(([1] * len(row) for row in rows), 0),
        position_ids_BT=padded((row.positions for row in rows), 0) if tree else None,
        predicting=(learnt_row, learnt_place),
        labels_N=labels_N,
        weights_N=torch.tensor(weights, dtype=torch.float, device=device),
        asking=(asked_row, asked_place),
        memory_index_Q=memory_index_Q,
        teacher_row_Q=teacher_row_Q,
        injected=(fed_row, fed_place),
        fed_index_I=fed_index_I,
        num_tokens=sum(map(len, rows)),
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


def _lm_weight(samples: Sequence[Sample]) -> float:
    return sum(weight for sample in samples for weight in _weights(sample))


def share_of(
    samples: Sequence[Sample],
    rank: int,
    world: int,
    pad_token_id: int,
    device: torch.device,
    multiple: int,
    sharing: bool = False,
) -> Batch:
    """What one of `world` processes computes of a batch, so that the mean of their gradients is the batch's own.

    Every process draws the same batch and takes each world-th sample. Its sums are divided as if it had a
    world-th of the whole, since gradients are averaged over the processes. A process that gets nothing computes a
    sample without loss: the others wait for it.
    """
    mine = list(samples[rank::world]) or [
        replace(samples[0], labels=(IGNORE,) * len(samples[0]), recall_position=-1)
    ]
    batch = collate(mine, pad_token_id, device, multiple, sharing)
    if world == 1:
        return batch
    return replace(
        batch,
        num_tokens=sum(map(len, lay_out(samples, sharing))),
        lm_weight=_lm_weight(samples) / world,
        num_asked=sum(map(_asks, samples)) / world,
    )


def length_grouped(samples: Sequence[Sample], batch_tokens: int, rng: random.Random) -> list[list[Sample]]:
    """Shuffled batches of samples of similar length, each of at most `batch_tokens` with its padding.

    Batches are cut by tokens, not by samples, so that methods with long prompts take as many optimiser steps
    as the others. A single sample over the limit is a batch of its own.
    """
    return dialogues_grouped([[sample] for sample in samples], batch_tokens, rng)


def dialogues_grouped(
    dialogues: Sequence[Sequence[Sample]], batch_tokens: int, rng: random.Random, sharing: bool = True
) -> list[list[Sample]]:
    """`length_grouped` of dialogues, whose samples stay in one batch."""
    widths = [sum(map(len, lay_out(dialogue, sharing))) for dialogue in dialogues]
    shuffled = rng.sample(range(len(dialogues)), len(dialogues))
    order = sorted(shuffled, key=lambda n: -widths[n] - rng.uniform(0, 12))
    batches: list[list[Sample]] = []
    start = 0
    while start < len(order):
        width = round_up(max(widths[n] for n in order[start : start + 8]))
        size = max(1, batch_tokens // width)
        batches.append([sample for n in order[start : start + size] for sample in dialogues[n]])
        start += size
    rng.shuffle(batches)
    return batches
