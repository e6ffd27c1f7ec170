"""Recall inside the decode loop: the specification's N, N+1, N+2.

    N     the model emits <recall> like any token
    N+1   the input ends with <recall>: its hidden state goes through the memory head, the logits through
          the same processors and warpers as tokens, and a memory is chosen
    N+2   <|memory_pad|> stands in the output, but the memory's vector is fed: `inputs_embeds`

A memory of P vectors takes P pads, which are fed in one forward, its text behind them as a draft. A memory without
vectors is given as its text.

(specification 2.2, 3.1 to 3.5). Shapes: R rows that recall, D hidden, M memories, P vectors of one memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.answering import parts_of
from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_text, recall_prompt
from methods.decode import Clock, Given, Sampling, generate
from methods.parts import read, recalled_texts
from methods.recall.bank import NULL_ID, MemoryBank
from tasks.base import Message

log = logging.getLogger(__name__)

BATCH_SIZE = 32  # memories that `test_memory_recall` recites at once
NO_TOKEN = -1  # of a mechanism that is off: no token triggers it


@dataclass(frozen=True)
class AutoregressiveRecall:
    """`memory.autoregressive_recall`: how a memory is chosen at <recall>."""

    enabled: bool = True
    autorecall_use_sampling: bool = False  # False: argmax over the processed logits
    temperature: float = 0.8
    top_k: int = 10
    top_p: float = 0.95
    repetition_penalty: float = 1.0  # over memories already recalled in this answer

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition_penalty"):
            if getattr(self, name) <= 0.0:
                raise MethodError(f"recall.{name}={getattr(self, name)} divides logits; choose one above 0")
        if self.top_k < 1:
            raise MethodError(f"recall.top_k={self.top_k} leaves no memory to choose; choose 1 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise MethodError(f"recall.top_p={self.top_p} is no share to draw from; choose above 0 and up to 1")


@dataclass(frozen=True)
class RecallEvent:
    """One recall of one row."""

    memory_index: int
    score: float  # cosine
    candidates: tuple[tuple[int, float], ...]  # best first


class RecallMechanism:
    """Steps N+1 and N+2 of the decode loop, and the memories that were chosen."""

    def __init__(
        self,
        bank: MemoryBank,
        backbone: Backbone,
        config: AutoregressiveRecall,
        logit_scale: float = 1.0,
        force_memory: Sequence[int | Sequence[int]] | None = None,
    ) -> None:
        """logit_scale: memory logits are cosines times this; 1: raw cosines, as specified.

        force_memory: for each row what is chosen whatever the query says (oracle arms): one bank index, or one for
        the first recall, one for the second and so on, of which the last serves all further ones.
        """
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        self.trigger = backbone.ids.recall
        self.bank, self.backbone, self.config, self.logit_scale = bank, backbone, config, logit_scale
        self.force_memory = force_memory
        self.events: list[list[RecallEvent]] = []
        self._clock: Clock | None = None
        self._processors = LogitsProcessorList()
        if config.repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        warpers = Sampling(
            config.autorecall_use_sampling, config.temperature, config.top_k, config.top_p
        ).warpers()
        self._processors.extend(warpers)

    def begin(self, batch_size: int, clock: Clock) -> None:
        self.events = [[] for _ in range(batch_size)]
        self._clock = clock
        if not self.config.enabled or not len(self.bank):
            self.trigger = NO_TOKEN

    def give(self, rows: Sequence[int], hidden_RD: Tensor) -> list[Given]:
        """Step N+1: the memory of each row, its pads, its vectors, and its text as the draft of what follows."""
        assert self._clock is not None
        with self._clock.stage("memory_head"):
            cosine_RM = self.bank.memory_head(hidden_RD).cpu()  # at once: each row's choice would wait for a card
            return [
                self._given(self._choose(row, cosine_M)) for row, cosine_M in zip(rows, cosine_RM, strict=True)
            ]

    def _given(self, index: int) -> Given:
        vectors_PD, ids = self.bank.memory_embeddings(index), self.backbone.ids
        text = [*encode_text(self.backbone.tokenizer, self.bank.texts[index]), ids.recall_end]
        if not len(vectors_PD):
            return Given(text, vectors_PD)
        return Given([ids.memory_pad] * len(vectors_PD), vectors_PD, text)

    def _choose(self, row: int, cosine_M: Tensor) -> int:
        best = torch.topk(cosine_M, k=min(10, len(cosine_M)))
        candidates = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        recalled = [event.memory_index for event in self.events[row]]
        if self.force_memory is not None:
            forced = self.force_memory[row]
            index = forced if isinstance(forced, int) else forced[min(len(recalled), len(forced) - 1)]
        else:
            recalled_1N: Any = torch.tensor([recalled], dtype=torch.long, device=cosine_M.device)
            scores_1M = self._processors(recalled_1N, cosine_M[None] * self.logit_scale)
            if self.config.autorecall_use_sampling:
                index = int(torch.multinomial(scores_1M.softmax(dim=-1), num_samples=1))
            else:
                index = int(scores_1M.argmax(dim=-1))
        self.events[row].append(RecallEvent(index, float(cosine_M[index]), candidates))
        for memory, score in candidates:
            log.debug("recall candidate %s cosine %.3f", self.bank.ids[memory] or "null", score)
        return index


def test_memory_recall(backbone: Backbone, bank: MemoryBank, context: str, limit: int | None = None) -> float:
    """Share of memories (the first `limit`) recited word for word from their true vectors, free-running, greedy.

    The prompt ends in <recall>, so the forced pad stands at `len(full_input_tokens) - 1`, as specified.
    An answer has room for the longest text of its batch, with its pads and </recall>.
    """
    rows = [row for row, memory_id in enumerate(bank.ids) if memory_id != NULL_ID][:limit]
    prompt = recall_prompt(backbone, [Message("user", context)])
    exact = 0
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        lengths = [len(encode_text(backbone.tokenizer, bank.texts[row])) + len(bank.fed[row]) for row in batch]
        mechanism = RecallMechanism(bank, backbone, AutoregressiveRecall(), force_memory=batch)
        outputs = generate(backbone, [prompt] * len(batch), max(lengths) + 1, mechanism=mechanism)
        texts = (recalled_text(backbone, [backbone.ids.recall, *output.token_ids])[0] for output in outputs)
        exact += sum(text == bank.texts[row].strip() for text, row in zip(texts, batch, strict=True))
    return exact / max(1, len(rows))


def recalled_text(backbone: Backbone, token_ids: Sequence[int]) -> list[str]:
    """The text behind each <recall>."""
    return recalled_texts(read(parts_of(backbone, token_ids)))


test_memory_recall.__test__ = False  # type: ignore[attr-defined]  # the specification's name, not a test
