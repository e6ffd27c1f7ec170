"""Step 2's data, drawn afresh every epoch (specification 4.3, 5.2).

    memory_front   random context + <recall> <|memory_pad|> TEXT </recall>
                   the vector must win over any context
    memory_full    question + <think> <recall> <|memory_pad|> TEXT </recall> reasoning </think> answer
                   recall inside real reasoning
    sft_only       an ordinary conversation, no memory token
                   nothing else is forgotten

Labels: the pad is -100 (its embedding is the memory vector), prompts are -100, the rest of the target is
learnt. <recall> is labelled where recalling is right; after an unrelated context it is not, or the model
would learn to recall on small talk.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import Piece, Sample, answer_pieces, encode_pieces, encode_prompt, split_think, supervised
from methods.examples import NULL_TEXT, Example, plain_messages, with_history
from methods.recall.bank import NULL_ID, MemoryBank
from methods.train import length_grouped
from tasks.base import Conversation, Memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureConfig:
    """Samples an epoch, as multiples of the number of memories."""

    memory_front: float = 1.0
    memory_full: float = 1.5
    sft_only: float = 0.5
    unanswerable: float = 0.35
    front_other_question: float = 0.5  # memory_front contexts that are another clause's question
    sft_max_tokens: int = 2500  # conversations over this are skipped and replaced


def conversation_sample(backbone: Backbone, conversation: Conversation) -> Sample:
    """The last assistant message is learnt; system, user and history are not. No think in the history."""
    think, answer = split_think(conversation.messages[-1].content)
    prompt = encode_prompt(backbone, plain_messages(conversation)[:-1])
    target = encode_pieces(backbone.tokenizer, answer_pieces(backbone, [think], answer))
    return supervised(prompt, target, "sft_only")


def recall_pieces(backbone: Backbone, text: str) -> list[Piece]:
    """What a recall looks like in the token stream."""
    ids = backbone.ids
    return [ids.recall, ids.memory_pad, text, ids.recall_end]


class MixedMemorySFTDataset:
    """Draws Step 2's samples. One `refresh_epoch_data()` an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        bank: MemoryBank,
        memories: Sequence[Memory],
        examples: dict[str, list[Example]],
        unanswerable: Sequence[Example],
        conversations: Sequence[Conversation],
        mixture: MixtureConfig,
        history_probability: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.backbone, self.bank = backbone, bank
        self.memories = list(memories)
        self.examples = {key: list(found) for key, found in examples.items()}
        self.unanswerable = list(unanswerable)
        self.conversations = list(conversations)
        self.mixture = mixture
        self.history_probability = history_probability
        self.batch_size = batch_size
        self.rng = random.Random(seed)
        self._decks: dict[str, list[Example]] = {}

    def _is_sft_within_token_limit(self, conversation: Conversation) -> bool:
        return len(conversation_sample(self.backbone, conversation)) <= self.mixture.sft_max_tokens

    def _sample_sft_for_epoch(self, total_target: int) -> list[int]:
        """Indices of conversations within the token limit, freshly shuffled. Too few is an error."""
        candidate_indices = list(range(len(self.conversations)))
        self.rng.shuffle(candidate_indices)
        chosen: list[int] = []
        for index in candidate_indices:
            if len(chosen) == total_target:
                break
            if self._is_sft_within_token_limit(self.conversations[index]):
                chosen.append(index)
        if len(chosen) < total_target:
            raise MethodError(
                f"Step 2 needs {total_target} SFT conversations of at most {self.mixture.sft_max_tokens} tokens "
                f"an epoch and found {len(chosen)} of {len(self.conversations)}; add conversations or raise "
                "sft_max_tokens"
            )
        return chosen

    def _next_example(self, memory_id: str) -> Example:
        """A clause's examples in turn: each is seen before any is seen again."""
        deck = self._decks.setdefault(memory_id, [])
        if not deck:
            deck += self.rng.sample(self.examples[memory_id], len(self.examples[memory_id]))
        return with_history(deck.pop(), self.conversations, self.history_probability, self.rng)

    def memory_full(self, example: Example) -> Sample:
        pieces = recall_pieces(self.backbone, example.clause)
        if example.reasoning:
            pieces.append("\n" + example.reasoning)
        prompt = encode_prompt(self.backbone, example.messages)
        target = encode_pieces(self.backbone.tokenizer, answer_pieces(self.backbone, pieces, example.answer))
        recall = target.index(self.backbone.ids.recall)
        index = self.bank.index(example.memory_id or NULL_ID)
        return supervised(prompt, target, "memory_full", recall=recall, pad=recall + 1, memory_index=index)

    def memory_front(self, memory: Memory, context: Sequence[int]) -> Sample:
        target = encode_pieces(
            self.backbone.tokenizer,
            [self.backbone.ids.think, "\n", *recall_pieces(self.backbone, memory.text)],
        )
        recall = target.index(self.backbone.ids.recall)
        return supervised(
            context,
            target,
            "memory_front",
            pad=recall + 1,
            memory_index=self.bank.index(memory.id),
            target_loss_from=recall + 1,
        )

    def _front_context(self, memory: Memory, conversation: Conversation) -> list[int]:
        """Another clause's question, or an unrelated conversation's: never one about this clause."""
        others = [m for m in self.memories if m.id != memory.id and self.examples[m.id]]
        if others and self.rng.random() < self.mixture.front_other_question:
            messages = self.rng.choice(self.examples[self.rng.choice(others).id]).messages
        else:
            messages = plain_messages(conversation)[:-1]
        return encode_prompt(self.backbone, messages)

    def refresh_epoch_data(self) -> list[Sample]:
        """One epoch's samples. Original indices of the conversations drawn are logged."""
        size = len(self.memories)
        num_front = round(size * self.mixture.memory_front)
        num_full = round(size * self.mixture.memory_full)
        num_pure = round(size * self.mixture.sft_only)
        num_null = round(size * self.mixture.unanswerable)
        prefix = self._sample_sft_for_epoch(min(num_front, len(self.conversations)))
        pure = self._sample_sft_for_epoch(min(num_pure, len(self.conversations)))
        log.debug("prefix indices %s, pure SFT indices %s", prefix, pure)
        order = self.rng.sample(self.memories, size)
        front = [order[i % size] for i in range(num_front)]
        asked = [m for m in self.rng.sample(self.memories, size) if self.examples[m.id]]
        full = [asked[i % len(asked)] for i in range(num_full)] if asked else []
        nulls = self.rng.sample(self.unanswerable, min(num_null, len(self.unanswerable)))
        samples = [
            self.memory_front(m, self._front_context(m, self.conversations[prefix[i % len(prefix)]]))
            for i, m in enumerate(front)
        ]
        samples += [self.memory_full(self._next_example(m.id)) for m in full]
        samples += [
            self.memory_full(with_history(e, self.conversations, self.history_probability, self.rng))
            for e in nulls
        ]
        samples += [conversation_sample(self.backbone, self.conversations[i]) for i in pure]
        return samples

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.refresh_epoch_data(), self.batch_size, self.rng)


__all__ = ["NULL_TEXT", "MixedMemorySFTDataset", "MixtureConfig", "conversation_sample", "recall_pieces"]
