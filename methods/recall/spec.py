"""`recall_spec`: the specification's recipe to the letter.

Unit vectors, injected as they are; raw cosines as memory logits; no cues, no null memory: the only data are
the memories and the general SFT corpus. Whether a question then finds its clause is what the comparison measures.

Step 1 (4.2, 5.1): <recall> learns to sum up a think segment. Segments come from the SFT corpus; each one's own
vector (the last token's hidden state, from the untouched base) is what the state at a <recall> set behind it is
pulled to.

Step 2 (4.3, 5.2), every weight matrix under LoRA, data drawn afresh every epoch:

    memory_front   random context, <think> + <recall> <|memory_pad|> TEXT </recall>
    memory_full    SFT prefix up to <think> + <recall> <|memory_pad|> TEXT </recall> + the rest of that sample
    sft_only       an ordinary conversation, no memory token

Labels: <recall> its own id in both memory types, the pad -100 (its embedding is the memory vector), TEXT
and </recall> learnt, the SFT suffix of memory_full learnt, everything before <recall> -100; sft_only learns
the assistant's message. The memory and the conversation have nothing to do with each other: that is the
specification's design, and what `methods.recall.recipe` changes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import torch

from methods.backbone import Backbone, check_weights, load_backbone
from methods.base import MethodError
from methods.batches import length_grouped
from methods.chat import Piece, encode_text
from methods.decode import generate
from methods.recall.bank import MemoryBank
from methods.recall.embed import _batch_extract_embeddings, memory_limit
from methods.recall.generation import AutoregressiveRecall, RecallMechanism, test_memory_recall
from methods.recall.method import TEST_CONTEXT, RecallMethod
from methods.recall.mixture import SftSampler, log_epoch
from methods.recall.recipe import RecallConfig, StageLogs, budgets, train_step
from methods.recall.writing import WriteConfig
from methods.samples import Sample, SampleKind, answer_pieces, conversation_sample, recall_pieces, reply_sample
from methods.setup import MethodSetup
from methods.train import drawn_first
from tasks.base import Conversation, Memory, split_think
from tasks.examples import Example, general, plain_messages

log = logging.getLogger(__name__)

RATIO = 1.5  # samples an epoch, and think segments, per memory
TEST_MEMORIES = 2  # that test_memory_recall recites after every epoch
SAMPLE_TYPES: tuple[SampleKind, ...] = ("memory_front", "memory_full", "sft_only")


@dataclass(frozen=True)
class SpecRecallConfig:
    """What the specification leaves to the user."""

    recall: AutoregressiveRecall = field(default_factory=AutoregressiveRecall)
    sample_types: tuple[str, ...] = SAMPLE_TYPES  # equal parts of each; fewer for an ablation
    sft_max_tokens: int = 2500  # conversations over this are skipped and replaced
    step1_share: float = 0.2  # of the token budget; 0: the ablation of 4.4

    def __post_init__(self) -> None:
        for name in self.sample_types:
            if name not in SAMPLE_TYPES:
                raise MethodError(
                    f"sample_types: {name!r} is no sample type; choose from: {', '.join(SAMPLE_TYPES)}"
                )
        if not self.sample_types:
            raise MethodError(f"sample_types is empty; choose from: {', '.join(SAMPLE_TYPES)}")


SEGMENT_ID = "\0segment/"  # ids of think segments in Step 1's bank; no clause id starts so


@dataclass(frozen=True)
class ThinkSegment:
    """One `<think>...</think>` of the corpus. index: of its conversation in the corpus."""

    index: int
    text: str

    @property
    def id(self) -> str:
        return f"{SEGMENT_ID}{self.index}"


def extract_think(conversation: Conversation) -> str:
    """The last think of the conversation, whatever a chat template makes of it; "" where it has none."""
    contents = (message.content.strip() for message in reversed(conversation.messages))
    return next((think for think, _answer in map(split_think, contents) if think), "")


def sample_think_segments(
    backbone: Backbone, conversations: Sequence[Conversation], count: int, max_tokens: int, rng: random.Random
) -> list[ThinkSegment]:
    """`count` segments in random order. Over-long ones are skipped and replaced from those that remain.

    Raises MethodError, with both numbers, where the corpus has too few.
    """
    order = list(range(len(conversations)))
    rng.shuffle(order)
    shuffled = (ThinkSegment(index, extract_think(conversations[index])) for index in order)
    fitting = (s for s in shuffled if s.text and len(encode_text(backbone.tokenizer, s.text)) <= max_tokens)
    found = list(islice(fitting, count))
    if len(found) < count:
        raise MethodError(
            f"Step 1 needs {count} think segments of at most {max_tokens} tokens and found {len(found)} in "
            f"{len(conversations)} conversations; take fewer memories or raise sft_max_tokens"
        )
    log.debug("think segments, original indices %s", [s.index for s in found])
    return found


def segment_sample(
    backbone: Backbone, conversation: Conversation, segment: ThinkSegment, bank: MemoryBank
) -> Sample:
    """context + `<think>\\nSEGMENT<recall>`: nothing is decoded, only the state at <recall> is trained."""
    return reply_sample(
        backbone,
        plain_messages(conversation.messages[:-1]),
        [backbone.ids.think, "\n" + segment.text, backbone.ids.recall],
        "query",
        "segments of conversations, look-up alone",
        memory_index=bank.index(segment.id),
        asks=True,
        learnt="nothing",
    )


def segment_epochs(
    backbone: Backbone,
    bank: MemoryBank,
    segments: Sequence[ThinkSegment],
    conversations: Sequence[Conversation],
    batch_tokens: int,
    seed: int,
) -> Iterator[list[list[Sample]]]:
    """Every segment once an epoch, in fresh batches."""
    rng = random.Random(seed)
    samples = [segment_sample(backbone, conversations[s.index], s, bank) for s in segments]
    while True:
        yield length_grouped(samples, batch_tokens, rng)


class MixedMemorySFTDataset:
    """The three sample types in equal parts. One `refresh_epoch_data()` an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        bank: MemoryBank,
        memories: Sequence[Memory],
        conversations: Sequence[Conversation],
        config: SpecRecallConfig,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.backbone, self.bank = backbone, bank
        self.memories, self.conversations = list(memories), list(conversations)
        self.config = config
        self.batch_tokens = batch_tokens
        self.rng = random.Random(seed)
        self.sampler = SftSampler(backbone, self.conversations, config.sft_max_tokens, self.rng)

    @property
    def num_samples(self) -> int:
        """Of an epoch, as many conversations as that."""
        return max(len(self.config.sample_types), round(len(self.memories) * RATIO))

    def check(self) -> None:
        """Raises MethodError where an epoch could not be drawn."""
        self.sampler.check(self.num_samples)

    def memory_front(self, memory: Memory, conversation: Conversation) -> Sample:
        """Random context, then the memory: whatever stands before, the vector is decoded."""
        pieces = [self.backbone.ids.think, "\n", *recall_pieces(self.backbone, memory.text)]
        return self._spliced(memory, conversation, "memory_front", pieces)

    def memory_full(self, memory: Memory, conversation: Conversation) -> Sample:
        """The memory between `<think>` and the rest of a conversation: recalling does not end the answer."""
        think, answer = split_think(conversation.messages[-1].content)
        recalled = recall_pieces(self.backbone, memory.text)
        pieces = answer_pieces(self.backbone, [*recalled, "\n" + think], answer)
        return self._spliced(memory, conversation, "memory_full", pieces)

    def sft_only(self, _memory: Memory, conversation: Conversation) -> Sample:
        return conversation_sample(self.backbone, conversation)

    def _spliced(
        self, memory: Memory, conversation: Conversation, kind: SampleKind, pieces: Sequence[Piece]
    ) -> Sample:
        return reply_sample(
            self.backbone,
            plain_messages(conversation.messages[:-1]),
            pieces,
            kind,
            "clauses in unrelated conversations",
            memory_index=self.bank.index(memory.id),
            num_pads=1,
            learnt="from <recall>",  # whose label is <recall>
        )

    def refresh_epoch_data(self) -> list[Sample]:
        """One epoch: memories x 1.5 conversations, in equal parts; memories dealt out in shuffled order."""
        types = self.config.sample_types
        total = self.num_samples
        chosen = self.sampler._sample_sft_for_epoch(total)
        bounds = [round(total * n / len(types)) for n in range(len(types) + 1)]
        parts = {name: chosen[bounds[n] : bounds[n + 1]] for n, name in enumerate(types)}
        dealt = cycle(self.rng.sample(self.memories, len(self.memories)))
        make = {"memory_front": self.memory_front, "memory_full": self.memory_full, "sft_only": self.sft_only}
        samples = [make[name](next(dealt), self.conversations[n]) for name, found in parts.items() for n in found]
        log_epoch(parts, samples)
        return samples

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.refresh_epoch_data(), self.batch_tokens, self.rng)


class SpecRecallMethod(RecallMethod):
    """`RecallMethod` with the literal bank, data and logits."""

    logit_scale = 1.0  # raw cosines (specification 3.2)

    def __init__(self, setup: MethodSetup, config: SpecRecallConfig | None = None) -> None:
        self.spec = config or SpecRecallConfig()
        super().__init__(
            setup, RecallConfig(recall=self.spec.recall, write=WriteConfig(max_steps=0)), "recall_spec"
        )

    def _extract(self, backbone: Backbone, memories: Sequence[Memory]) -> torch.Tensor:
        """Raw vectors (N, D): the last token's state of the plain text; of segments up to `sft_max_tokens`."""
        limit = max(memory_limit(backbone), self.spec.sft_max_tokens)
        return _batch_extract_embeddings(backbone, [m.text for m in memories], max_tokens=limit)

    def _make_bank(self, entries: Sequence[Memory]) -> MemoryBank:
        """Last-token states of the texts, L2-normalised at write; injected with norm 1."""
        raw_ND = self._extract(self.backbone, entries)
        bank = MemoryBank(torch.zeros_like(raw_ND[0]), 1.0, self.backbone.fingerprint)
        unit_ND = bank.normalise(raw_ND)
        bank.write([m.id for m in entries], [m.text for m in entries], unit_ND, list(unit_ND[:, None]))
        return bank

    def _new_keys(self, memories: Sequence[Memory], asked: Sequence[Sequence[Example]]) -> torch.Tensor:
        """The texts' vectors, as at the fit: from the untouched base, at hand where this model is a copy of it."""
        own = self.backbone
        untouched = own.origin or load_backbone(own.name, str(own.device), own.dtype_name)
        check_weights(untouched, own.fingerprint)
        return self.fitted_bank().normalise(self._extract(untouched, memories))

    def _train(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> StageLogs:
        spec, setup, backbone = self.spec, self.setup, self.backbone
        conversations, seed = general(sft), setup.train.seed
        count, limit = round(len(memories) * RATIO), spec.sft_max_tokens
        segments = sample_think_segments(backbone, conversations, count, limit, random.Random(seed))
        bank = self.bank = self._make_bank(
            [*memories, *self.setup.indexed, *(Memory(s.id, s.text) for s in segments)]
        )
        step1, step2 = budgets(setup.train, spec.step1_share)
        dataset = MixedMemorySFTDataset(backbone, bank, memories, conversations, spec, step2.batch_tokens, seed)
        dataset.check()
        decoding = drawn_first(backbone, dataset.epochs())
        summing = segment_epochs(backbone, bank, segments, conversations, step1.batch_tokens, seed)
        log1 = train_step(setup, "step1", bank, summing, step1, learn_vectors=False)
        notes = {"segment_hit_at_1": self._segment_hits(segments, conversations)}
        bank.forget([s.id for s in segments])
        log2 = train_step(
            setup, "step2", bank, decoding, step2, learn_vectors=False, on_epoch_end=self._test_epoch
        )
        return StageLogs(log1, log2, notes)

    def _segment_hits(self, segments: Sequence[ThinkSegment], conversations: Sequence[Conversation]) -> float:
        """Share of trained segments whose <recall> finds the segment's own vector among all of the bank.

        Measured through the decode loop: the prompt ends in <recall>, one step is taken.
        """
        bank = self.fitted_bank()
        hits = 0
        for start in range(0, len(segments), 16):
            part = segments[start : start + 16]
            prompts = [segment_sample(self.backbone, conversations[s.index], s, bank).input_ids for s in part]
            mechanism = RecallMechanism(bank, self.backbone, AutoregressiveRecall())
            generate(self.backbone, prompts, 1, mechanism=mechanism)
            found = [events[0].memory_index for events in mechanism.events]
            hits += sum(a == bank.index(s.id) for a, s in zip(found, part, strict=True))
        return hits / max(1, len(segments))

    def _test_epoch(self, epoch: int) -> None:
        """`test_memory_recall` on the model as it stands, LoRA not yet merged."""
        share = test_memory_recall(self.backbone, self.fitted_bank(), TEST_CONTEXT, limit=TEST_MEMORIES)
        log.info("epoch %d: %.2f of %d memories recited word for word", epoch, share, TEST_MEMORIES)
