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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from methods.backbone import Backbone
from methods.base import MethodError
from methods.batches import length_grouped
from methods.chat import Sample, answer_pieces, encode_pieces, encode_prompt, split_think, supervised
from methods.examples import plain_messages
from methods.recall.bank import MemoryBank
from methods.samples import MemorySampleKind, conversation_sample, recall_pieces
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


def log_epoch(indices: Mapping[str, Sequence[int]], samples: Sequence[Sample]) -> None:
    """Logs an epoch: the conversations drawn, by what they are for, by their place in the corpus; then of each
    sample its type, where memory vectors are injected (-1: nowhere) and how long it is (specification 4.3).
    """
    for name, found in indices.items():
        log.debug("%s original indices %s", name, list(found))
    for sample in samples:
        log.debug("%s: memory at %d, %d tokens", sample.kind, sample.pad_position, len(sample))


class SftSampler:
    """Conversations within the token limit, freshly shuffled at every draw (specification 5.2).

    repeats: where a draw wants more than there are, each comes once before any comes again; else that is an error.
    """

    def __init__(
        self,
        backbone: Backbone,
        conversations: Sequence[Conversation],
        max_tokens: int,
        rng: random.Random,
        repeats: bool = False,
    ) -> None:
        self.backbone, self.conversations, self.max_tokens, self.rng = backbone, conversations, max_tokens, rng
        self.repeats = repeats
        self._fits: dict[int, bool] = {}

    def _is_sft_within_token_limit(self, conversation: Conversation) -> tuple[bool, int]:
        """Whether it fits, and its tokens under the chat template."""
        seq_len = len(conversation_sample(self.backbone, conversation))
        return seq_len <= self.max_tokens, seq_len

    def _within_limit(self, index: int) -> bool:
        if index not in self._fits:
            self._fits[index] = self._is_sft_within_token_limit(self.conversations[index])[0]
        return self._fits[index]

    def check(self, total_target: int) -> None:
        """Raises MethodError where no draw can hold `total_target` conversations: before anything is trained."""
        wanted = min(total_target, 1) if self.repeats else total_target
        found = 0
        for index in range(len(self.conversations)):
            if found >= wanted:
                return
            found += self._within_limit(index)
        if found < wanted:
            fewer = "" if self.repeats else "take fewer memories, lower mixture.ratio or "
            raise MethodError(
                f"Step 2 needs {total_target} SFT conversations of at most {self.max_tokens} tokens an epoch "
                f"and found {found} of {len(self.conversations)}; {fewer}raise mixture.sft_max_tokens"
            )

    def _sample_sft_for_epoch(self, total_target: int) -> list[int]:
        """Indices of `total_target` conversations. Too few within the limit is a MethodError (see `check`)."""
        self.check(total_target)
        if not total_target:  # what is off draws nothing
            return []
        candidate_indices = list(range(len(self.conversations)))
        self.rng.shuffle(candidate_indices)
        chosen: list[int] = []
        for index in candidate_indices:
            if len(chosen) == total_target:
                break
            if self._within_limit(index):
                chosen.append(index)
        once = list(chosen)
        while len(chosen) < total_target:
            chosen += self.rng.sample(once, min(len(once), total_target - len(chosen)))
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

    @property
    def num_samples(self) -> int:
        """Of an epoch, as many conversations as that."""
        return max(len(self.mixture.sample_types), round(len(self.memories) * self.mixture.ratio))

    def check(self) -> None:
        """Raises MethodError where an epoch could not be drawn."""
        self.sampler.check(self.num_samples)

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
        total = self.num_samples
        chosen = self.sampler._sample_sft_for_epoch(total)
        bounds = [round(total * n / len(types)) for n in range(len(types) + 1)]
        parts = {name: chosen[bounds[n] : bounds[n + 1]] for n, name in enumerate(types)}
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
        log_epoch(parts, samples)
        return samples

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.refresh_epoch_data(), self.batch_tokens, self.rng)
