"""Step 1: make the hidden state of <recall> a good query (specification 4.2).

LoRA on Q and V only. The state at <recall> is pulled to its memory's vector and away from every other
vector of the bank: cross-entropy over cosine / tau (InfoNCE; van den Oord et al. 2018, arXiv:1807.03748).
The calibrated recipe asks real and self-made questions; no text is decoded, so the output head never runs
and a step costs little.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.augment import answered, augmented
from methods.backbone import Backbone
from methods.chat import Sample, encode_pieces, encode_prompt, supervised
from methods.examples import READING_ID, Example, ExampleConfig
from methods.recall.bank import NULL_ID, MemoryBank
from methods.train import LoraTrainConfig, MemoryTerm, Progress, Teacher, TrainLog, train_lora
from methods.turns import example_turn, turn_batches
from tasks.base import Conversation


def query_sample(backbone: Backbone, example: Example, bank: MemoryBank, trigger: bool = False) -> Sample:
    """question + `<think>\\n<recall>`: nothing is decoded, only the state at <recall> is trained.

    trigger: that the reply begins with them is learnt as well.
    """
    prompt = encode_prompt(backbone, example.messages)
    target = encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", backbone.ids.recall])
    return supervised(
        prompt,
        target,
        "query",
        recall=len(target) - 1,
        memory_index=bank.index(example.memory_id or NULL_ID),
        teacher_row=example.teacher_row,
        target_loss_from=0 if trigger else len(target),
    )


def query_epochs(
    backbone: Backbone,
    bank: MemoryBank,
    examples: dict[str, list[Example]],
    unanswerable: Sequence[Example],
    reading: Sequence[Example],
    conversations: Sequence[Conversation],
    augmentation: ExampleConfig,
    batch_tokens: int,
    seed: int,
) -> Iterator[list[list[Sample]]]:
    """Each epoch: every clause's questions once, as many on the corpus's passages, some for the null memory."""
    rng = random.Random(seed)
    pool, talk = [example for found in examples.values() for example in found], answered(examples)
    while True:
        nulls = rng.sample(list(unanswerable), min(len(unanswerable), max(2, len(pool) // 10)))
        read = rng.sample(list(reading), min(len(reading), len(pool)))
        drawn = [augmented(e, conversations, augmentation, rng, talk) for e in [*pool, *read, *nulls]]
        turns = [example_turn(e, lambda behind: query_sample(backbone, behind, bank)) for e in drawn]
        yield turn_batches(backbone, turns, augmentation.dialogue_turns, batch_tokens, rng)


def train_recall_token(
    backbone: Backbone,
    bank: MemoryBank,
    epochs: Iterator[list[list[Sample]]],
    config: LoraTrainConfig,
    progress: Progress,
    adapter_to: Path | None = None,
    train_keys: bool = False,
    teacher: Teacher | None = None,
    *,
    tied: bool = False,
    twins_MM: Tensor | None = None,
) -> TrainLog:
    """Trains the query. train_keys: the bank's keys move towards the queries; else they stay as they are.

    tied: what is fed moves with them. twins_MM: as in `memory_term`.
    """
    memory = memory_term(bank, config, train_keys=train_keys, tied=tied, twins_MM=twins_MM, teacher=teacher)
    log = train_lora(
        backbone, epochs, config, stage="recall step 1", memory=memory, progress=progress, adapter_to=adapter_to
    )
    take_vectors(bank, memory)
    return log


def twins_of(bank: MemoryBank) -> Tensor:
    """(M, M): training passages of one kind, which are no negatives for each other."""
    kinds = [i.split("/")[1] if i.startswith(READING_ID) else i for i in bank.ids]
    numbers = {kind: n for n, kind in enumerate(dict.fromkeys(kinds))}
    kind_M = torch.tensor([numbers[kind] for kind in kinds], device=bank.keys_MKD.device)
    return (kind_M[:, None] == kind_M) & ~torch.eye(len(kinds), dtype=torch.bool, device=kind_M.device)


def memory_term(
    bank: MemoryBank,
    config: LoraTrainConfig,
    *,
    train_keys: bool = False,
    train_values: bool = False,
    tied: bool = False,
    twins_MM: Tensor | None = None,
    teacher: Teacher | None = None,
) -> MemoryTerm:
    """The bank as training sees it. twins_MM: who are no negatives for each other; None: `twins_of` the bank."""
    return MemoryTerm(
        bank.keys_MKD,
        bank.values_MPD,
        bank.gain,
        config.retrieval_temperature,
        train_keys=train_keys,
        train_values=train_values,
        tied=tied,
        twins_MM=twins_of(bank) if twins_MM is None else twins_MM,
        teacher=teacher,
    )


def take_vectors(bank: MemoryBank, memory: MemoryTerm) -> None:
    """Gives the bank the vectors that were trained."""
    if memory.keys_MKD.requires_grad:
        bank.keys_MKD = F.normalize(memory.keys_MKD.detach(), dim=-1)
    if memory.values_MPD.requires_grad:
        bank.take_values(F.normalize(memory.values_MPD.detach(), dim=-1))
