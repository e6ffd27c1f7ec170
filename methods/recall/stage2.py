"""Step 2: make the memory vector decodable and keep ordinary ability (specification 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from methods.backbone import Backbone
from methods.chat import Sample, encode_text
from methods.decode import generate
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from methods.recall.stage1 import memory_term, take_vectors
from methods.samples import recall_prompt
from methods.train import LoraTrainConfig, Progress, Teacher, TrainLog, train_lora
from tasks.base import Message


def test_memory_recall(
    backbone: Backbone,
    bank: MemoryBank,
    context: str,
    max_new_tokens: int | None = None,
    limit: int | None = None,
    batch_size: int = 32,
) -> float:
    """Share of memories (the first `limit`) recited word for word from their true vectors, free-running, greedy.

    The prompt ends in <recall>, so the forced pad stands at `len(full_input_tokens) - 1`, as specified.
    max_new_tokens: None for what the longest text of a batch takes, with its pads and </recall>.
    """
    rows = [row for row, memory_id in enumerate(bank.ids) if memory_id != NULL_ID][:limit]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    exact = sum(_num_recited(backbone, bank, context, batch, max_new_tokens) for batch in batches)
    return exact / max(1, len(rows))


test_memory_recall.__test__ = False  # type: ignore[attr-defined]  # the specification's name, not a test


def _num_recited(
    backbone: Backbone, bank: MemoryBank, context: str, rows: Sequence[int], max_new_tokens: int | None
) -> int:
    """How many of these rows of the bank are recited word for word, generated together."""
    ids = backbone.ids
    prompt = recall_prompt(backbone, [Message("user", context)])
    if max_new_tokens is None:
        lengths = [
            len(encode_text(backbone.tokenizer, bank.texts[row])) + len(bank.memory_embeddings(row))
            for row in rows
        ]
        max_new_tokens = max(lengths) + 1
    interceptor = RecallInterceptor(bank, ids, AutoregressiveRecall(), force_memory=list(rows))
    outputs = generate(backbone, [prompt] * len(rows), max_new_tokens, interceptor=interceptor)
    exact = 0
    for row, output in zip(rows, outputs, strict=True):
        new = list(output.token_ids)
        end = new.index(ids.recall_end) if ids.recall_end in new else len(new)
        exact += (
            backbone.tokenizer.decode([t for t in new[:end] if t != ids.memory_pad]).strip()
            == bank.texts[row].strip()
        )
    return exact


def train_memory_decoding(
    backbone: Backbone,
    bank: MemoryBank,
    epochs: Iterator[list[list[Sample]]],
    config: LoraTrainConfig,
    progress: Progress,
    adapter_to: Path | None = None,
    train_keys: bool = False,
    train_values: bool = False,
    on_epoch_end: Callable[[Any, int], None] | None = None,
    teacher: Teacher | None = None,
    *,
    tied: bool = False,
    twins_MM: Tensor | None = None,
) -> TrainLog:
    """Trains decoding and retrieval together; the LoRA is merged at the end.

    train_keys, train_values: the vectors that are matched and those that are injected learn with the weights,
    untied from each other unless `tied`; the bank gets them. twins_MM: as in `memory_term`.
    """
    memory = memory_term(
        bank,
        config,
        train_keys=train_keys,
        train_values=train_values,
        tied=tied,
        twins_MM=twins_MM,
        teacher=teacher,
    )
    log = train_lora(
        backbone,
        epochs,
        config,
        stage="recall step 2",
        memory=memory,
        progress=progress,
        on_epoch_end=on_epoch_end,
        adapter_to=adapter_to,
    )
    take_vectors(bank, memory)
    return log
