"""Retrieval distilled from the sentence encoder: its ranking of the bank for every training question.

A few questions a clause say which clause is right, and of all others only that they are wrong. The encoder's
cosines also say how near each of those is, clauses without questions among them, and that is learnt as soft
targets beside the gold memory (Hinton et al. 2015, arXiv:1503.02531; for retrievers TCT-ColBERT,
arXiv:2010.11386, and RocketQAv2, arXiv:2110.07367). The encoder is used at the fit alone: a fitted model has
no part of it.

Shapes: Q questions, M memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from methods.examples import Example
from methods.recall.bank import MemoryBank
from methods.train import Teacher


def with_row(example: Example, rows: dict[str, int]) -> Example:
    """The example with the teacher's row for its question, which is added to `rows` where it is new.

    The row stays with the example when words of the question are left out or a history is set before it: the
    teacher always ranks by the question in full.
    """
    return replace(example, teacher_row=rows.setdefault(example.messages[-1].content, len(rows)))


def encoder_cosines(encoder: Any, questions: Sequence[str], texts: Sequence[str | None]) -> Tensor:
    """(Q, M) cosines, fp32; -inf for a memory without a text, as the null memory: there is nothing to rank."""

    def unit(part: Sequence[str]) -> Tensor:
        return torch.as_tensor(
            encoder.encode(list(part), normalize_embeddings=True, show_progress_bar=False), dtype=torch.float32
        )

    if not questions:
        return torch.empty(0, len(texts))
    known = [row for row, text in enumerate(texts) if text is not None]
    cosines_QM = torch.full((len(questions), len(texts)), float("-inf"))
    cosines_QM[:, known] = unit(questions) @ unit([text for text in texts if text is not None]).T
    return cosines_QM


def near_duplicates(encoder: Any, texts: Sequence[str | None], margin: float) -> Tensor:
    """(M, M): pairs of memories whose texts' cosine is over `margin`, the share of what a text has with itself.

    Their questions cannot be told apart, so one is no negative for the other: the positive-aware mining of
    NV-Retriever (Moreira et al. 2024, arXiv:2407.15831), the memory's own text in place of the question. A
    memory without a text has none.
    """
    own = [text or "" for text in texts]
    cosines_MM = encoder_cosines(encoder, own, texts)
    known_M = torch.tensor([text is not None for text in texts], dtype=torch.bool)
    near_MM = (cosines_MM > margin) & known_M[:, None]
    return near_MM & ~torch.eye(len(own), dtype=torch.bool)


def agreed(example: Example, teacher: Teacher, bank: MemoryBank, twins_MM: Tensor) -> Example:
    """The example as it is where the teacher ranks its memory first, twins apart; else without its row.

    Where it is wrong there is nothing to learn from it, and the gold memory stays the whole target.
    """
    gold = bank.index(example.memory_id)
    ranking_M = teacher.logits_QM[example.teacher_row].masked_fill(twins_MM[gold], float("-inf"))
    return example if int(ranking_M.argmax()) == gold else replace(example, teacher_row=-1)
