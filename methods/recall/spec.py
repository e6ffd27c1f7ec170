"""`recall_spec`: the specification's recipe to the letter.

Unit vectors, injected as they are; raw cosines as memory logits; no cues, no null memory: the only data are
the memories and the general SFT corpus. Step 1 pulls <recall> behind a think segment to that segment's vector
(4.2), Step 2 trains on `MixedMemorySFTDataset` with every weight matrix under LoRA (4.3). Whether a question
then finds its clause is what the comparison measures.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from methods.backbone import Backbone
from methods.decode import generate
from methods.examples import general
from methods.recall.bank import MemoryBank
from methods.recall.embed import _batch_extract_embeddings, memory_limit
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from methods.recall.method import RecallMethod, StageLogs
from methods.recall.mixed_dataset import MixedMemorySFTDataset, SpecMixture
from methods.recall.segments import ThinkSegment, sample_think_segments, segment_epochs, segment_sample
from methods.recall.stage1 import train_recall_token
from methods.recall.stage2 import test_memory_recall, train_memory_decoding
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, TrainLog
from tasks.base import Conversation, Memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpecRecallConfig:
    """What the specification leaves to the user."""

    mixture: SpecMixture = field(default_factory=SpecMixture)
    recall: AutoregressiveRecall = field(default_factory=AutoregressiveRecall)
    step1: bool = True  # False: the ablation of 4.4
    step1_share: float = 0.2  # of the token budget
    test_memories: int = 2  # memories that test_memory_recall recites after every epoch; 0: none
    test_context: str = "What does the handbook say?"


class SpecRecallMethod(RecallMethod):
    """`RecallMethod` with the literal bank, data and logits."""

    def __init__(
        self, setup: MethodSetup, config: SpecRecallConfig | None = None, name: str = "recall_spec"
    ) -> None:
        super().__init__(setup, None, name)
        self.spec = config or SpecRecallConfig()
        self.recall = self.spec.recall
        self.test_context = self.spec.test_context
        self.write_config = WriteConfig(max_steps=0, query_weight=0.0)  # the text's vector, as specified

    def _budgets(self, step1_share: float) -> tuple[LoraTrainConfig, LoraTrainConfig]:
        """The token budget of both steps; the weights are the last ones, never a mean."""
        step1, step2 = super()._budgets(step1_share)
        return step1, replace(step2, average_from=1.0)

    def _extract(self, backbone: Backbone, memories: Sequence[Memory]) -> torch.Tensor:
        """Raw vectors (N, D): the last token's state of the plain text."""
        return _batch_extract_embeddings(backbone, [m.text for m in memories])

    def _make_bank(self, memories: Sequence[Memory], extra: Sequence[Memory]) -> MemoryBank:
        """Last-token states of the texts, L2-normalised at write; injected with norm 1.

        extra: think segments, which may be as long as `sft_max_tokens` allows.
        """
        entries = [*memories, *extra]
        limit = max(memory_limit(self.backbone), self.spec.mixture.sft_max_tokens)
        raw_ND = _batch_extract_embeddings(self.backbone, [m.text for m in entries], max_tokens=limit)
        bank = MemoryBank(torch.zeros_like(raw_ND[0]), 1.0, self.backbone.fingerprint)
        bank.write([m.id for m in entries], [m.text for m in entries], raw_ND, raw_ND)
        return bank

    def _train(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> StageLogs:
        spec, setup = self.spec, self.setup
        conversations = general(sft)
        rng = random.Random(setup.train.seed)
        count = round(len(memories) * spec.mixture.ratio)
        limit = spec.mixture.sft_max_tokens
        segments = sample_think_segments(self.backbone, conversations, count, limit, rng)
        bank = self.bank = self._make_bank(memories, [Memory(s.id, s.text) for s in segments])
        step1, step2 = self._budgets(spec.step1_share if spec.step1 else 0.0)
        dataset = MixedMemorySFTDataset(
            self.backbone, bank, memories, conversations, spec.mixture, step2.batch_tokens, step2.seed
        )
        dataset.check()
        notes: dict[str, float] = {}
        log1 = TrainLog()
        if spec.step1:
            batches = segment_epochs(self.backbone, bank, segments, conversations, step1.batch_tokens, step1.seed)
            log1 = train_recall_token(
                self.backbone, bank, batches, step1, setup.progress, setup.adapters / "step1"
            )
        notes["segment_hit_at_1"] = self._segment_hits(segments, conversations)
        bank.forget([s.id for s in segments])
        log2 = train_memory_decoding(
            self.backbone,
            bank,
            dataset.epochs(),
            step2,
            setup.progress,
            setup.adapters / "step2",
            on_epoch_end=self._test_epoch if spec.test_memories else None,
        )
        return StageLogs(log1, log2, notes)

    def _segment_hits(self, segments: Sequence[ThinkSegment], conversations: Sequence[Conversation]) -> float:
        """Share of trained segments whose <recall> finds the segment's own vector among all of the bank.

        Measured through the decode loop: the prompt ends in <recall>, one step is taken.
        """
        bank = self._bank()
        prompts = []
        for segment in segments:
            sample = segment_sample(self.backbone, conversations[segment.index], segment, bank)
            prompts.append(list(sample.input_ids))
        hits = 0
        for start in range(0, len(prompts), 16):
            part = prompts[start : start + 16]
            interceptor = RecallInterceptor(bank, self.backbone.ids, AutoregressiveRecall())
            generate(self.backbone, part, 1, interceptor=interceptor)
            found = [events[0].memory_index for events in interceptor.events]
            wanted = [bank.index(s.id) for s in segments[start : start + 16]]
            hits += sum(a == b for a, b in zip(found, wanted, strict=True))
        return hits / max(1, len(prompts))

    def _test_epoch(self, model: Any, epoch: int) -> None:
        """`test_memory_recall` on the model as it stands, LoRA not yet merged."""
        live = replace(self.backbone, model=model)
        share = test_memory_recall(live, self._bank(), self.spec.test_context, limit=self.spec.test_memories)
        log.info("epoch %d: %.2f of %d memories recited word for word", epoch, share, self.spec.test_memories)

    @property
    def _logit_scale(self) -> float:
        """Raw cosines (specification 3.2)."""
        return 1.0
