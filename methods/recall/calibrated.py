"""Step 2's data of the calibrated recipe: the specification's sample types, on questions that need the memory.

    memory_front   another clause's question or a conversation, then <recall> PADS TEXT </recall>
    memory_full    question + <think> <recall> PADS TEXT </recall> reasoning </think> answer
    sft_only       an ordinary conversation, no memory token; cut behind its reasoning's first words, an opening
    query          question + <think> <recall>: Step 1's sample, with the trigger learnt

PADS are as many <|memory_pad|> as a memory has vectors.

What differs from `mixed_dataset`: memory_full's question is one that its memory answers, and the state at
<recall> learns to find it; <recall> has no label after an unrelated context, or the model would learn to
recall on small talk; questions on the corpus's reading passages and questions that no clause covers are
mixed in. Silent: no TEXT in memory_full, the answer follows from the vector.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from methods.augment import answered, augmented, later_turn, talk_before
from methods.backbone import Backbone
from methods.base import MethodError
from methods.batches import can_share, dialogues_grouped
from methods.chat import IGNORE, Sample, answer_pieces, encode_pieces, encode_prompt, split_think, supervised
from methods.examples import Example, ExampleConfig, plain_messages
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.mixed_dataset import SftSampler, log_epoch
from methods.recall.stage1 import query_sample
from methods.samples import conversation_sample, recall_pieces, think_pieces
from methods.turns import Turn, as_dialogues, conversation_turn, example_turn
from tasks.base import Conversation, Memory, Message


@dataclass(frozen=True)
class MixtureConfig:
    """Samples an epoch, as multiples of the number of memories.

    The trigger is one token of a sample: `trigger_weight` makes it louder, `openings` and `queries` are short
    samples that end behind it.
    """

    memory_front: float = 0.75
    memory_full: float = 1.5
    sft_only: float = 0.75
    openings: float = 0.5  # ordinary conversations cut behind the first words of their reasoning
    queries: float = 0.5  # questions on clauses cut behind <recall>
    queries_later: float = 0.67  # share of those put as later turns (methods.augment.later_turn)
    queries_reading: float = 0.5  # queries on the corpus's passages, for each on a clause
    trigger_weight: float = 5.0  # of the token that decides whether to recall: <recall>, or what stands instead
    reading: float = 1.0  # questions on the corpus's own passages, which are recalled but not decoded
    unanswerable: float = 0.15
    front_other_question: float = 0.5  # memory_front contexts that are another clause's question
    front_recall: bool = False  # memory_front learns <think> and <recall> too, whatever stands before them
    foreign_vector: float = 0.0  # share of the answered questions whose text stands under another clause's vector
    sft_max_tokens: int = 2500  # conversations over this are skipped; few that remain come more than once
    recited_weight: float = 1.0  # of the recalled text's token losses in memory_full; 0: learnt in front only
    silent: bool = False  # memory_full without the recalled text: the answer follows from the vector alone

    def __post_init__(self) -> None:
        parts = ("memory_front", "memory_full", "sft_only", "openings", "queries", "reading", "unanswerable")
        for name in (*parts, "queries_reading"):
            if getattr(self, name) < 0.0:
                raise MethodError(f"mixture.{name}={getattr(self, name)} is below 0; choose 0 or more")
        for name in ("foreign_vector", "front_other_question", "queries_later"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MethodError(f"mixture.{name}={getattr(self, name)} is not a share; choose from 0 to 1")
        for name in ("recited_weight", "trigger_weight"):
            if getattr(self, name) < 0.0:
                raise MethodError(f"mixture.{name}={getattr(self, name)} would unlearn; choose 0 or more")


class CalibratedDataset:
    """Draws Step 2's samples. One `refresh_epoch_data()` an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        bank: MemoryBank,
        memories: Sequence[Memory],
        examples: dict[str, list[Example]],
        unanswerable: Sequence[Example],
        reading: Sequence[Example],
        conversations: Sequence[Conversation],
        mixture: MixtureConfig,
        augmentation: ExampleConfig,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.backbone, self.bank = backbone, bank
        self.memories = list(memories)
        self.examples = {key: list(found) for key, found in examples.items()}
        self.unanswerable = list(unanswerable)
        self.reading = list(reading)
        self.conversations = list(conversations)
        self.mixture = mixture
        self.augmentation = augmentation
        self.batch_tokens = batch_tokens
        self.rng = random.Random(seed)
        self.sampler = SftSampler(backbone, self.conversations, mixture.sft_max_tokens, self.rng, repeats=True)
        self._answered = answered(self.examples)
        self._sharing = can_share(backbone.model)
        self._decks: dict[str, list[Example]] = {}
        # Place in a reply of <recall>, or of what stands there instead
        self._decision = len(encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n"]))

    def _augmented(self, example: Example) -> Example:
        return augmented(example, self.conversations, self.augmentation, self.rng, self._answered)

    def _next_example(self, memory_id: str) -> Example:
        """A clause's examples in turn: each is seen before any is seen again."""
        deck = self._decks.setdefault(memory_id, [])
        if not deck:
            deck += self.rng.sample(self.examples[memory_id], len(self.examples[memory_id]))
        return self._augmented(deck.pop())

    def memory_full(self, example: Example, decode: bool = True) -> Sample:
        """A question, its memory recalled inside the think, the answer.

        decode: False leaves the recalled text without loss: such a memory teaches when to recall, what to
        look for and how to go on, and takes no room among those that must be known by heart. Otherwise the
        text's tokens, most of the sample, count `recited_weight` each, so that the answer is heard beside them.
        """
        text = "" if self.mixture.silent else example.clause
        pieces = think_pieces(self.backbone, recall_pieces(self.backbone, text, self.bank.num_vectors), example)
        prompt = encode_prompt(self.backbone, example.messages)
        target = encode_pieces(self.backbone.tokenizer, pieces)
        ids = self.backbone.ids
        recall, end = target.index(ids.recall), target.index(ids.recall_end)
        index = self.bank.index(example.memory_id or NULL_ID)
        pads = self.bank.num_vectors
        sample = supervised(
            prompt, target, "memory_full", recall=recall, pad=recall + 1, num_pads=pads, memory_index=index
        )
        recited = range(len(prompt) + recall + 1 + pads, len(prompt) + end)
        weight = self.mixture.recited_weight if decode else 0.0
        weights = tuple(weight if i in recited else 1.0 for i in range(len(sample)))
        return replace(sample, loss_weights=weights, teacher_row=example.teacher_row)

    def memory_foreign(self, example: Example) -> Sample:
        """memory_full with another clause's vector under the pad; the text, which is not decoded, has no loss.

        A vector that is seen with few questions leads to their reasoning by itself. Here it says nothing, so that
        reading the text is all that helps.
        """
        others = [m.id for m in self.memories if m.id != example.memory_id]
        sample = self.memory_full(example, decode=False)
        return replace(sample, fed_index=self.bank.index(self.rng.choice(others)))

    def _front_context(self, memory: Memory, conversation: Conversation) -> tuple[Message, ...]:
        """Another clause's question, or the unrelated conversation."""
        others = [m for m in self.memories if m.id != memory.id and self.examples[m.id]]
        if others and self.rng.random() < self.mixture.front_other_question:
            return self.rng.choice(self.examples[self.rng.choice(others).id]).messages
        return plain_messages(conversation)[:-1]

    def memory_front(self, memory: Memory, messages: Sequence[Message]) -> Sample:
        """A context that is not about it, then this memory.

        Whatever stands before, the vector decides what is recited. Nothing before it is learnt unless
        `front_recall`: where no other sample type is trained, that alone makes the model recall.
        """
        pads = self.bank.num_vectors
        pieces = [self.backbone.ids.think, "\n", *recall_pieces(self.backbone, memory.text, pads)]
        target = encode_pieces(self.backbone.tokenizer, pieces)
        recall = target.index(self.backbone.ids.recall)
        return supervised(
            encode_prompt(self.backbone, messages),
            target,
            "memory_front",
            pad=recall + 1,
            num_pads=pads,
            memory_index=self.bank.index(memory.id),
            target_loss_from=0 if self.mixture.front_recall else recall + 1,
        )

    def opening(self, conversation: Conversation) -> Sample:
        """An ordinary conversation as far as the first words of its reasoning, where it recalls nothing.

        Whether to recall is decided at one token of a conversation; cut behind it, several conversations cost as
        much as a whole one.
        """
        messages = plain_messages(conversation)[:-1]
        think, answer = split_think(conversation.messages[-1].content)
        target = encode_pieces(self.backbone.tokenizer, answer_pieces(self.backbone, [think], answer))
        return supervised(encode_prompt(self.backbone, messages), target[: self._decision + 2], "sft_only")

    def query(self, example: Example) -> Sample:
        """A question as far as `<recall>`: that it is looked up, and where."""
        return query_sample(self.backbone, example, self.bank, trigger=True)

    def _queried(self, example: Example) -> Example:
        """The question of a query, as a later turn `queries_later`."""
        if self.mixture.queries_later and self.rng.random() < self.mixture.queries_later:
            return later_turn(example, self.conversations, self.augmentation, self.rng, self._answered)
        return self._augmented(example)

    def _front_turn(self, memory: Memory, conversation: Conversation) -> Turn:
        """memory_front; later turns see nothing of it."""
        return Turn(self._front_context(memory, conversation), "", lambda said: self.memory_front(memory, said))

    def _read(self, example: Example) -> Sample:
        """A question on a passage, which is recalled and not decoded."""
        return self.memory_full(example, decode=False)

    def _whole(self, conversation: Conversation) -> Sample:
        """An ordinary conversation."""
        return conversation_sample(self.backbone, conversation)

    def _behind_talk(self, conversation: Conversation) -> Conversation:
        """An opening stands behind such talk as a question does."""
        before = talk_before(self.conversations, self.augmentation, self.rng, self._answered)
        return replace(conversation, messages=(*before, *conversation.messages))

    def _asked(self, example: Example) -> Sample:
        share = 0.0 if self.mixture.silent or len(self.memories) < 2 else self.mixture.foreign_vector
        foreign = example.answer and self.rng.random() < share
        return self.memory_foreign(example) if foreign else self.memory_full(example)

    def _decided(self, sample: Sample) -> Sample:
        """The sample with the loss of its trigger's token weighted, where that is learnt."""
        begins = next(i for i, label in enumerate(sample.labels) if label != IGNORE)
        if self.mixture.trigger_weight == 1.0 or sample.input_ids[begins] != self.backbone.ids.think:
            return sample
        weights = list(sample.loss_weights or (1.0,) * len(sample))
        weights[begins + self._decision] *= self.mixture.trigger_weight
        return replace(sample, loss_weights=tuple(weights))

    def _num(self, share: float) -> int:
        """Samples an epoch."""
        return round(len(self.memories) * share)

    @property
    def _num_sought(self) -> int:
        """Queries on reading passages an epoch."""
        return self._num(self.mixture.queries * self.mixture.queries_reading)

    def check(self) -> None:
        """Raises MethodError where an epoch could not be drawn or would hold nothing."""
        mixture = self.mixture
        num_front, num_pure = self._num(mixture.memory_front), self._num(mixture.sft_only)
        num_open, num_query = self._num(mixture.openings), self._num(mixture.queries)
        self.sampler.check(max(num_front, num_pure, num_open))
        num_full = self._num(mixture.memory_full) + num_query if any(self.examples.values()) else 0
        num_null = min(self._num(mixture.unanswerable), len(self.unanswerable))
        num_read = min(self._num(mixture.reading) + self._num_sought, len(self.reading))
        if not num_front + num_pure + num_open + num_full + num_null + num_read:
            raise MethodError("mixture: an epoch would hold no sample; raise mixture.memory_front or another part")

    def refresh_epoch_data(self) -> list[Sample]:
        """One epoch's samples."""
        return [sample for dialogue in self.refresh_dialogues() for sample in dialogue]

    def refresh_dialogues(self) -> list[list[Sample]]:
        """One epoch's samples by the dialogues that they are turns of, logged by `log_epoch`."""
        size = len(self.memories)
        num_front = self._num(self.mixture.memory_front)
        num_full = self._num(self.mixture.memory_full)
        num_null = self._num(self.mixture.unanswerable)
        prefix = self.sampler._sample_sft_for_epoch(num_front)
        pure = self.sampler._sample_sft_for_epoch(self._num(self.mixture.sft_only))
        opened = self.sampler._sample_sft_for_epoch(self._num(self.mixture.openings))
        order = self.rng.sample(self.memories, size)
        front = [order[i % size] for i in range(num_front)]
        asked = [m for m in self.rng.sample(self.memories, size) if self.examples[m.id]]
        full = [asked[i % len(asked)] for i in range(num_full)] if asked else []
        nulls = self.rng.sample(self.unanswerable, min(num_null, len(self.unanswerable)))
        turns = [self._front_turn(m, self.conversations[prefix[i]]) for i, m in enumerate(front)]
        turns += [example_turn(self._next_example(m.id), self._asked) for m in full]
        sought = [asked[i % len(asked)] for i in range(self._num(self.mixture.queries))] if asked else []
        turns += [example_turn(self._queried(self.rng.choice(self.examples[m.id])), self.query) for m in sought]
        passages = self.rng.sample(self.reading, min(len(self.reading), self._num_sought))
        turns += [example_turn(self._queried(e), self.query) for e in passages]
        turns += [example_turn(self._augmented(e), self.memory_full) for e in nulls]
        num_read = min(len(self.reading), self._num(self.mixture.reading))
        read = [self._augmented(e) for e in self.rng.sample(self.reading, num_read)]
        turns += [example_turn(e, self._read) for e in read]
        turns += [conversation_turn(self.conversations[i], self._whole) for i in pure]
        turns += [conversation_turn(self._behind_talk(self.conversations[i]), self.opening) for i in opened]
        dialogues = as_dialogues(turns, self.augmentation.dialogue_turns, self.batch_tokens, self.rng)
        samples = [sample for dialogue in dialogues for sample in dialogue]
        log_epoch({"memory_front": prefix, "sft_only": pure, "openings": opened}, samples)
        return [[self._decided(sample) for sample in dialogue] for dialogue in dialogues]

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield dialogues_grouped(self.refresh_dialogues(), self.batch_tokens, self.rng, self._sharing)
