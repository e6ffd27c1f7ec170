"""Step 2's data as the specification writes it (4.3 and 5.2), drawn afresh every epoch.

    memory_front   random context, <think> + <recall> <|memory_pad|> TEXT </recall>
    memory_full    SFT prefix up to <think> + <recall> <|memory_pad|> TEXT </recall> + the rest of that sample
    sft_only       an ordinary conversation, no memory token

Labels: <recall> its own id in both memory types, the pad -100 (its embedding is the memory vector), TEXT
and </recall> learnt, the SFT suffix of memory_full learnt, everything before <recall> -100; sft_only learns
the assistant's message. The memory and the conversation have nothing to do with each other: that is the
specification's design, and what `methods.recall.calibrated` changes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import Sample, answer_pieces, encode_pieces, encode_prompt, split_think, supervised
from methods.examples import plain_messages
from methods.recall.bank import MemoryBank
from methods.samples import MemorySampleKind, conversation_sample, recall_pieces
from methods.train import length_grouped
from tasks.base import Conversation, Memory

log = logging.getLogger(__name__)

SAMPLE_TYPES: tuple[str, ...] = get_args(MemorySampleKind)


@dataclass(frozen=True)
class SpecMixture:
    """What an epoch holds."""

    sample_types: tuple[str, ...] = SAMPLE_TYPES  # equal parts of each; fewer for an ablation
    ratio: float = 1.5  # samples an epoch, per memory
    sft_max_tokens: int = 2500  # conversations over this are skipped and replaced

    def __post_init__(self) -> None:
        for name in self.sample_types:
            if name not in SAMPLE_TYPES:
                raise MethodError(
                    f"sample_types: {name!r} is no sample type; choose from: {', '.join(SAMPLE_TYPES)}"
                )
        if not self.sample_types:
            raise MethodError(f"sample_types is empty; choose from: {', '.join(SAMPLE_TYPES)}")


class SftSampler:
    """Conversations within the token limit, freshly shuffled at every draw (specification 5.2)."""

    def __init__(
        self, backbone: Backbone, conversations: Sequence[Conversation], max_tokens: int, rng: random.Random
    ) -> None:
        self.backbone, self.conversations, self.max_tokens, self.rng = backbone, conversations, max_tokens, rng

    def _is_sft_within_token_limit(self, conversation: Conversation) -> tuple[bool, int]:
        """Whether it fits, and its tokens under the chat template."""
        seq_len = len(conversation_sample(self.backbone, conversation))
        return seq_len <= self.max_tokens, seq_len

    def _sample_sft_for_epoch(self, total_target: int) -> list[int]:
        """Indices of `total_target` conversations. Too few within the limit is a MethodError."""
        candidate_indices = list(range(len(self.conversations)))
        self.rng.shuffle(candidate_indices)
        chosen: list[int] = []
        for index in candidate_indices:
            if len(chosen) == total_target:
                break
            within_limit, _seq_len = self._is_sft_within_token_limit(self.conversations[index])
            if within_limit:
                chosen.append(index)
        if len(chosen) < total_target:
            raise MethodError(
                f"Step 2 needs {total_target} SFT conversations of at most {self.max_tokens} tokens an epoch "
                f"and found {len(chosen)} of {len(self.conversations)}; add conversations or raise "
                "sft_max_tokens"
            )
        return chosen


class MixedMemorySFTDataset:
    """The three sample types in equal parts. One `refresh_epoch_data()` an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        bank: MemoryBank,
        memories: Sequence[Memory],
        conversations: Sequence[Conversation],
        mixture: SpecMixture,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.backbone, self.bank = backbone, bank
        self.memories, self.conversations = list(memories), list(conversations)
        self.mixture = mixture
        self.batch_tokens = batch_tokens
        self.rng = random.Random(seed)
        self.sampler = SftSampler(backbone, self.conversations, mixture.sft_max_tokens, self.rng)

    def memory_front(self, memory: Memory, conversation: Conversation) -> Sample:
        """Random context, then the memory: whatever stands before, the vector is decoded."""
        return self._spliced(memory, conversation, "memory_front", suffix=False)

    def memory_full(self, memory: Memory, conversation: Conversation) -> Sample:
        """The memory between `<think>` and the rest of a conversation: recalling does not end the answer."""
        return self._spliced(memory, conversation, "memory_full", suffix=True)

    def _spliced(self, memory: Memory, conversation: Conversation, kind: MemorySampleKind, suffix: bool) -> Sample:
        ids = self.backbone.ids
        prefix = encode_prompt(self.backbone, plain_messages(conversation)[:-1])
        pieces = [ids.think, "\n", *recall_pieces(self.backbone, memory.text)]
        if suffix:
            think, answer = split_think(conversation.messages[-1].content)
            pieces = answer_pieces(
                self.backbone, [*recall_pieces(self.backbone, memory.text), "\n" + think], answer
            )
        target = encode_pieces(self.backbone.tokenizer, pieces)
        recall = target.index(ids.recall)
        return supervised(
            prefix,
            target,
            kind,
            pad=recall + 1,
            memory_index=self.bank.index(memory.id),
            target_loss_from=recall,  # the label of <recall> is <recall>
        )

    def refresh_epoch_data(self) -> list[Sample]:
        """One epoch: memories x 1.5 conversations, in equal parts; memories dealt out in shuffled order."""
        types = self.mixture.sample_types
        total = max(len(types), round(len(self.memories) * self.mixture.ratio))
        chosen = self.sampler._sample_sft_for_epoch(total)
        bounds = [round(total * n / len(types)) for n in range(len(types) + 1)]
        parts = {name: chosen[bounds[n] : bounds[n + 1]] for n, name in enumerate(types)}
        for name, indices in parts.items():
            log.debug("%s original indices %s", name, indices)
        order = self.rng.sample(self.memories, len(self.memories))
        dealt = (order[n % len(order)] for n in range(total))
        samples: list[Sample] = []
        for name, indices in parts.items():
            for index in indices:
                memory, conversation = next(dealt), self.conversations[index]
                if name == "memory_front":
                    samples.append(self.memory_front(memory, conversation))
                elif name == "memory_full":
                    samples.append(self.memory_full(memory, conversation))
                else:
                    samples.append(conversation_sample(self.backbone, conversation))
        for sample in samples:
            log.debug("%s: memory at %d, %d tokens", sample.kind, sample.pad_position, len(sample))
        return samples

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.refresh_epoch_data(), self.batch_tokens, self.rng)
