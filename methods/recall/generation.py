"""Recall inside the decode loop: the specification's N, N+1, N+2 state machine, one state a row.

    N     the model emits <recall> like any token
    N+1   the input ends with <recall>: its hidden state goes through the memory head, the logits through
          the same processors and warpers as tokens; `override_next_embed` and `forced_next_token_id` are set
    N+2   <|memory_pad|> is fed, but as `inputs_embeds`: the memory vector. Both fields are cleared

A memory of P vectors takes P pads: N+2 is repeated until all were fed.

(specification 2.2, 3.1 to 3.5). Shapes: B batch, D hidden, M memories.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from methods.backbone import ControlIds
from methods.base import MethodError
from methods.decode import FREE, Clock
from methods.recall.bank import MemoryBank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutoregressiveRecall:
    """`memory.autoregressive_recall`: how a memory is chosen at <recall>."""

    enabled: bool = True
    autorecall_use_sampling: bool = False  # False: argmax over the processed logits
    temperature: float = 0.8
    top_k: int = 10
    top_p: float = 0.95
    repetition_penalty: float = 1.0  # over memories already recalled in this answer
    # Memory logits are cosines times this. 1: raw cosines; 0: what the recipe has, 1 / tau of training in the
    # calibrated ones, 1 in recall_spec. Only a draw and a penalty can tell
    logit_scale: float = 0.0
    recall_bias: float = 0.0  # added to the logit of <recall> at every step, where enabled; above 0: more recalls
    debug_top_k: int = 0  # log that many candidates at each recall

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition_penalty"):
            if getattr(self, name) <= 0.0:
                raise MethodError(f"recall.{name}={getattr(self, name)} divides logits; choose one above 0")
        if self.top_k < 1:
            raise MethodError(f"recall.top_k={self.top_k} leaves no memory to choose; choose 1 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise MethodError(f"recall.top_p={self.top_p} is no share to draw from; choose above 0 and up to 1")
        for name in ("logit_scale", "debug_top_k"):
            if getattr(self, name) < 0:
                raise MethodError(f"recall.{name}={getattr(self, name)} is below 0; choose 0 or more")

    @property
    def biased(self) -> bool:
        """Is the logit of `<recall>` changed? Never with recall off: the output is then that of `generate`."""
        return self.enabled and self.recall_bias != 0.0


@dataclass(frozen=True)
class RecallEvent:
    """One recall of one row."""

    memory_index: int
    score: float  # cosine
    candidates: tuple[tuple[int, float], ...]  # best first


@dataclass
class _RowState:
    """The two fields of specification 3.5, for one row; None outside a recall."""

    override_next_embed: Tensor | None = None
    forced_next_token_id: int | None = None
    waiting: list[Tensor] = field(default_factory=list)  # further vectors of the memory that is being fed
    recalled: list[int] = field(default_factory=list)


class RecallInterceptor:
    """Sits in the decode loop and does steps N+1 and N+2. `force_memory` serves the oracle arms.

    force_memory: for each row what is chosen whatever the query says: one bank index, or one for the first
    recall, one for the second and so on, of which the last serves all further ones.
    """

    def __init__(
        self,
        bank: MemoryBank,
        ids: ControlIds,
        config: AutoregressiveRecall,
        force_memory: Sequence[int | Sequence[int]] | None = None,
    ) -> None:
        from transformers import (
            LogitsProcessorList,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self.bank, self.ids, self.config = bank, ids, config
        self.force_memory = force_memory
        self.events: list[list[RecallEvent]] = []
        self._rows: list[_RowState] = []
        self._clock: Clock | None = None
        self._processors: Any = LogitsProcessorList()
        if config.repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        if config.autorecall_use_sampling:
            self._processors.append(TemperatureLogitsWarper(config.temperature))
            self._processors.append(TopKLogitsWarper(config.top_k))
            self._processors.append(TopPLogitsWarper(config.top_p))

    def begin(self, batch_size: int, clock: Clock) -> None:
        self._rows = [_RowState() for _ in range(batch_size)]
        self.events = [[] for _ in range(batch_size)]
        self._clock = clock

    def after_forward(self, input_ids_BT: Tensor, hidden_BD: Tensor) -> Tensor | None:
        """Step N+1 for every row whose last token is <recall>; the next pad where a vector is waiting."""
        if not self.config.enabled or not len(self.bank):
            return None
        recall_triggered = input_ids_BT[:, -1] == self.ids.recall
        going_on = [row for row, state in enumerate(self._rows) if state.waiting]
        if not going_on and not bool(recall_triggered.any()):
            return None
        assert self._clock is not None
        rows = recall_triggered.nonzero().squeeze(-1).tolist()
        forced_B = torch.full((input_ids_BT.shape[0],), FREE, device=input_ids_BT.device)
        for row in going_on:
            state = self._rows[row]
            state.override_next_embed = state.waiting.pop(0)
            state.forced_next_token_id = self.ids.memory_pad
            forced_B[row] = state.forced_next_token_id
        if not rows:
            return forced_B
        with self._clock.stage("memory_head"):
            cosine_RM = self.bank.memory_head(hidden_BD[rows])
            for row, cosine_M in zip(rows, cosine_RM, strict=True):
                state = self._rows[row]
                index = self._choose(row, state, cosine_M)
                state.recalled.append(index)
                state.override_next_embed, *state.waiting = self.bank.memory_embeddings(index)
                state.forced_next_token_id = self.ids.memory_pad
                forced_B[row] = state.forced_next_token_id
        return forced_B

    def _choose(self, row: int, state: _RowState, cosine_M: Tensor) -> int:
        best = torch.topk(cosine_M, k=min(10, len(cosine_M)))
        candidates = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        if self.force_memory is not None:
            forced = self.force_memory[row]
            index = forced if isinstance(forced, int) else forced[min(len(state.recalled), len(forced) - 1)]
        else:
            recalled_1N = torch.tensor([state.recalled], dtype=torch.long, device=cosine_M.device)
            logits_1M = cosine_M[None] * (self.config.logit_scale or 1.0)
            scores_1M = self._processors(recalled_1N, logits_1M) if self._processors else logits_1M
            if self.config.autorecall_use_sampling:
                index = int(torch.multinomial(scores_1M.softmax(dim=-1), num_samples=1))
            else:
                index = int(scores_1M.argmax(dim=-1))
        self.events[row].append(RecallEvent(index, float(cosine_M[index]), candidates))
        for memory, score in candidates[: self.config.debug_top_k]:
            log.info("recall candidate %s cosine %.3f", self.bank.ids[memory] or "null", score)
        return index

    def next_inputs_embeds(self, input_ids_B1: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Step N+2: rows with `override_next_embed` are fed their memory vector, then cleared."""
        rows = [row for row, state in enumerate(self._rows) if state.override_next_embed is not None]
        if not rows:
            return None
        inputs_embeds = embed(input_ids_B1).clone()
        for row in rows:
            state = self._rows[row]
            assert state.override_next_embed is not None
            if int(input_ids_B1[row, 0]) == self.ids.memory_pad:  # a finished row holds padding instead
                inputs_embeds[row, 0] = state.override_next_embed.to(inputs_embeds)
            state.override_next_embed = None
            state.forced_next_token_id = None
        return inputs_embeds
