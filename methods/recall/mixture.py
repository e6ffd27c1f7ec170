"""What the calibrated recipe trains on: the specification's sample types, on questions that need the memory.

    memory_front   another clause's question or a conversation, then <recall> PADS TEXT </recall>
    memory_full    question + <think> <recall> PADS TEXT </recall> reasoning </think> answer
    sft_only       an ordinary conversation, no memory token; cut behind its reasoning's first words, an opening
    query          question + <think> <recall>: all of Step 1; in Step 2 with the trigger learnt

PADS are as many <|memory_pad|> as a memory has vectors; where it has none, the text itself is fed, not learnt.
What differs from the literal recipe (`methods.recall.spec`): memory_full's question is one that its memory
answers, and the state at <recall> learns to find it; <recall> has no label after an unrelated context, or the
model would learn to recall on small talk; questions on the corpus's reading passages, which are recalled but not
decoded, and questions that no clause covers are mixed in.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

from methods.backbone import Backbone
from methods.base import MethodError
from methods.batches import length_grouped
from methods.chat import encode_pieces
from methods.recall.bank import NULL_ID, MemoryBank
from methods.samples import (
    IGNORE,
    Sample,
    conversation_sample,
    recall_pieces,
    reply_sample,
    think_pieces,
)
from tasks.base import Conversation, Memory, Message
from tasks.examples import (
    Example,
    ExampleConfig,
    augmented,
    clause_examples,
    drawn,
    general,
    in_turn,
    later_turn,
    plain_messages,
    reading_examples,
    talk_before,
    unanswerable_examples,
)

log = logging.getLogger(__name__)

TRIGGER_WEIGHT = 5.0  # of the token that decides whether to recall: <recall>, or what stands instead
QUERIES_LATER = 0.67  # share of queries put as later turns (tasks.examples.later_turn)
QUERIES_READING = 0.5  # queries on the corpus's passages, for each on a clause
FRONT_OTHER_QUESTION = 0.5  # memory_front contexts that are another clause's question
SFT_MAX_TOKENS = 2500  # conversations over this are skipped; few that remain come more than once


@dataclass(frozen=True)
class MixtureConfig:
    """Step 2's samples an epoch, as multiples of the number of memories, beside those of `ExampleConfig`.

    The trigger is one token of a sample: `TRIGGER_WEIGHT` makes it louder, `openings` and `queries` are short
    samples that end behind it.
    """

    memory_front: float = 0.75
    memory_full: float = 1.5
    openings: float = 0.5  # ordinary conversations cut behind the first words of their reasoning
    queries: float = 0.5  # questions on clauses cut behind <recall>

    def __post_init__(self) -> None:
        for name in ("memory_front", "memory_full", "openings", "queries"):
            if getattr(self, name) < 0.0:
                raise MethodError(f"mixture.{name}={getattr(self, name)} is below 0; choose 0 or more")


def query_sample(backbone: Backbone, example: Example, bank: MemoryBank, trigger: bool = False) -> Sample:
    """question + `<think>\\n<recall>`: nothing is decoded, only the state at <recall> is trained.

    trigger: that the reply begins with them is learnt as well.
    """
    return reply_sample(
        backbone,
        example.messages,
        [backbone.ids.think, "\n", backbone.ids.recall],
        "query",
        f"{example.source}, look-up alone",
        memory_index=bank.index(example.memory_id or NULL_ID),
        asks=True,
        learnt="all" if trigger else "nothing",
    )


@dataclass(frozen=True)
class Corpus:
    """What a fit draws from."""

    memories: Sequence[Memory]
    examples: Mapping[str, Sequence[Example]]  # by memory id; empty where nothing asks for it
    unanswerable: Sequence[Example]
    reading: Sequence[Example]  # on passages, which are in the bank while it is trained
    conversations: Sequence[Conversation]

    @classmethod
    def of(cls, memories: Sequence[Memory], sft: Sequence[Conversation], config: ExampleConfig) -> Corpus:
        return cls(
            memories,
            clause_examples(memories, config),
            unanswerable_examples(sft),
            reading_examples(sft),
            general(sft),
        )

    @property
    def passages(self) -> list[Memory]:
        return list({e.memory_id: Memory(e.memory_id, e.clause) for e in self.reading}.values())


def query_epochs(
    backbone: Backbone, bank: MemoryBank, corpus: Corpus, config: ExampleConfig, batch_tokens: int, seed: int
) -> Iterator[list[list[Sample]]]:
    """Step 1's: every clause's questions once, as many on the corpus's passages, some for the null memory."""
    rng = random.Random(seed)
    pool = [example for found in corpus.examples.values() for example in found]
    while True:
        nulls = drawn(corpus.unanswerable, max(2, len(pool) // 10), rng)
        read = drawn(corpus.reading, len(pool), rng)
        asked = [augmented(e, corpus.conversations, config, rng) for e in [*pool, *read, *nulls]]
        yield length_grouped([query_sample(backbone, e, bank) for e in asked], batch_tokens, rng)


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
        self._within_limit = cache(lambda n: self._is_sft_within_token_limit(conversations[n])[0])

    def _is_sft_within_token_limit(self, conversation: Conversation) -> tuple[bool, int]:
        """Whether it fits, and its tokens under the chat template."""
        seq_len = len(conversation_sample(self.backbone, conversation))
        return seq_len <= self.max_tokens, seq_len

    def check(self, total_target: int) -> None:
        """Raises MethodError where no draw can hold `total_target` conversations: before anything is trained."""
        wanted = min(total_target, 1) if self.repeats else total_target
        found = len(list(islice(filter(self._within_limit, range(len(self.conversations))), wanted)))
        if found < wanted:
            mend = "take shorter ones" if self.repeats else "take fewer memories or raise sft_max_tokens"
            raise MethodError(
                f"Step 2 needs {total_target} SFT conversations of at most {self.max_tokens} tokens an epoch "
                f"and found {found} of {len(self.conversations)}; {mend}"
            )

    def _sample_sft_for_epoch(self, total_target: int) -> list[int]:
        """Indices of `total_target` conversations. Too few within the limit is a MethodError (see `check`)."""
        self.check(total_target)
        if not total_target:  # what is off draws nothing
            return []
        candidate_indices = list(range(len(self.conversations)))
        self.rng.shuffle(candidate_indices)
        chosen = list(islice(filter(self._within_limit, candidate_indices), total_target))
        once = list(chosen)
        while len(chosen) < total_target:
            chosen += self.rng.sample(once, min(len(once), total_target - len(chosen)))
        return chosen


def log_epoch(indices: Mapping[str, Sequence[int]], samples: Sequence[Sample]) -> None:
    """Logs an epoch: the conversations drawn, by what they are for, by their place in the corpus; then of each
    sample its type, where memory vectors are injected (-1: nowhere) and how long it is (specification 4.3).
    """
    for name, found in indices.items():
        log.debug("%s original indices %s", name, list(found))
    for sample in samples:
        log.debug("%s: memory at %d, %d tokens", sample.kind, sample.pad_position, len(sample))


class CalibratedDataset:
    """Draws Step 2's samples. One `refresh_epoch_data()` an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        bank: MemoryBank,
        corpus: Corpus,
        mixture: MixtureConfig,
        drawing: ExampleConfig,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.backbone, self.bank, self.corpus = backbone, bank, corpus
        self.mixture, self.drawing = mixture, drawing
        self.batch_tokens = batch_tokens
        self.rng = random.Random(seed)
        self.sampler = SftSampler(backbone, corpus.conversations, SFT_MAX_TOKENS, self.rng, repeats=True)
        self._decks: dict[str, list[Example]] = {}
        # Place in a reply of <recall>, or of what stands there instead
        self._decision = len(encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n"]))

    def memory_full(self, example: Example, decode: bool = True) -> Sample:
        """A question, its memory recalled inside the think, the answer.

        decode: False leaves the recalled text without loss: such a memory teaches when to recall, what to
        look for and how to go on, and takes no room among those that must be known by heart. Where the text itself
        is fed, so is </recall>, whatever the model would say.
        """
        pads = self.bank.num_vectors
        sample = reply_sample(
            self.backbone,
            example.messages,
            think_pieces(self.backbone, recall_pieces(self.backbone, example.clause, pads), example),
            "memory_full",
            example.source,
            memory_index=self.bank.index(example.memory_id or NULL_ID),
            num_pads=pads,
            asks=True,
        )
        if pads and decode:
            return sample
        begin = sample.recall_position + 1 + pads
        end = sample.input_ids.index(self.backbone.ids.recall_end, begin) + (not pads)
        labels = *sample.labels[:begin], *[IGNORE] * (end - begin), *sample.labels[end:]
        return replace(sample, labels=labels)

    def _front_context(self, memory: Memory, conversation: Conversation) -> tuple[Message, ...]:
        """Another clause's question, or the unrelated conversation."""
        examples = self.corpus.examples
        others = [m for m in self.corpus.memories if m.id != memory.id and examples[m.id]]
        if others and self.rng.random() < FRONT_OTHER_QUESTION:
            return self.rng.choice(examples[self.rng.choice(others).id]).messages
        return plain_messages(conversation.messages[:-1])

    def memory_front(self, memory: Memory, messages: Sequence[Message]) -> Sample:
        """A context that is not about it, then this memory.

        Whatever stands before, the vector decides what is recited. Nothing before it is learnt, unless no other
        sample teaches to recall.
        """
        pads = self.bank.num_vectors
        return reply_sample(
            self.backbone,
            messages,
            [self.backbone.ids.think, "\n", *recall_pieces(self.backbone, memory.text, pads)],
            "memory_front",
            "clauses recited",
            memory_index=self.bank.index(memory.id),
            num_pads=pads,
            learnt="behind <recall>" if self.mixture.memory_full or self.mixture.queries else "all",
        )

    def opening(self, conversation: Conversation) -> Sample:
        """An ordinary conversation as far as the first words of its reasoning, where it recalls nothing.

        Whether to recall is decided at one token of a conversation; cut behind it, several conversations cost as
        much as a whole one. It stands behind such talk as a question does.
        """
        before = talk_before(self.corpus.conversations, self.drawing, self.rng)
        behind = replace(conversation, messages=(*before, *conversation.messages))
        whole = conversation_sample(self.backbone, behind)
        end = whole.learnt[0] + self._decision + 2
        source = f"{whole.source}, first words alone"
        return replace(whole, input_ids=whole.input_ids[:end], labels=whole.labels[:end], source=source)

    def query(self, example: Example) -> Sample:
        """A question as far as `<recall>`: that it is looked up, and where."""
        later = self.rng.random() < QUERIES_LATER
        put = (later_turn if later else augmented)(example, self.corpus.conversations, self.drawing, self.rng)
        return query_sample(self.backbone, put, self.bank, trigger=True)

    def _decided(self, sample: Sample) -> Sample:
        """The sample with the loss of its trigger's token weighted, where that is learnt."""
        begins = next(i for i, label in enumerate(sample.labels) if label != IGNORE)
        if sample.input_ids[begins] != self.backbone.ids.think:
            return sample
        weights = [1.0] * len(sample)
        weights[begins + self._decision] = TRIGGER_WEIGHT
        return replace(sample, loss_weights=tuple(weights))

    def _num(self, share: float) -> int:
        """Samples an epoch."""
        return round(len(self.corpus.memories) * share)

    def check(self) -> None:
        """Raises MethodError where an epoch could not be drawn or would hold nothing."""
        mixture, drawing, corpus = self.mixture, self.drawing, self.corpus
        num_pure = max(self._num(n) for n in (mixture.memory_front, drawing.sft_only, mixture.openings))
        self.sampler.check(num_pure)
        asked = self._num(mixture.memory_full + mixture.queries) if any(corpus.examples.values()) else 0
        null = min(self._num(drawing.unanswerable), len(corpus.unanswerable))
        read = min(self._num(drawing.reading + mixture.queries * QUERIES_READING), len(corpus.reading))
        if not num_pure + asked + null + read:
            raise MethodError("mixture: an epoch would hold no sample; raise mixture.memory_full or another part")

    def refresh_epoch_data(self) -> list[Sample]:
        """One epoch's samples, logged by `log_epoch`."""
        mixture, drawing, corpus, rng = self.mixture, self.drawing, self.corpus, self.rng
        size = len(corpus.memories)
        prefix = self.sampler._sample_sft_for_epoch(self._num(mixture.memory_front))
        pure = self.sampler._sample_sft_for_epoch(self._num(drawing.sft_only))
        opened = self.sampler._sample_sft_for_epoch(self._num(mixture.openings))
        order = rng.sample(list(corpus.memories), size)
        front = [order[i % size] for i in range(len(prefix))]
        asked = [m for m in rng.sample(list(corpus.memories), size) if corpus.examples[m.id]]
        talk = corpus.conversations

        def in_order(share: float) -> list[Memory]:
            return [asked[i % len(asked)] for i in range(self._num(share))] if asked else []

        def put(example: Example) -> Example:
            return augmented(example, talk, drawing, rng)

        nulls = drawn(corpus.unanswerable, self._num(drawing.unanswerable), rng)
        samples = [self.memory_front(m, self._front_context(m, talk[prefix[i]])) for i, m in enumerate(front)]
        full = (in_turn(corpus.examples, m.id, self._decks, rng) for m in in_order(mixture.memory_full))
        samples += [self.memory_full(put(example)) for example in full]
        samples += [self.query(rng.choice(corpus.examples[m.id])) for m in in_order(mixture.queries)]
        looked_up = drawn(corpus.reading, self._num(mixture.queries * QUERIES_READING), rng)
        samples += [self.query(e) for e in looked_up]
        samples += [self.memory_full(put(e)) for e in nulls]
        read = drawn(corpus.reading, self._num(drawing.reading), rng)
        samples += [self.memory_full(put(e), decode=False) for e in read]
        samples += [conversation_sample(self.backbone, talk[i]) for i in pure]
        samples += [self.opening(talk[i]) for i in opened]
        log_epoch({"memory_front": prefix, "sft_only": pure, "openings": opened}, samples)
        return [self._decided(sample) for sample in samples]

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.refresh_epoch_data(), self.batch_tokens, self.rng)
