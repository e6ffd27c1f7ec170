"""LoRA SFT: the knowledge is trained into the weights; the think recites the clause, then reasons."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from methods.answering import answer_from, prompts_for
from methods.backbone import Backbone
from methods.base import Answer, Context, FitReport, RefitNeeded, WriteReport
from methods.batches import length_grouped
from methods.decode import Clock, generate
from methods.samples import Sample, answer_pieces, conversation_sample, reply_sample, think_pieces
from methods.setup import MethodSetup
from methods.train import merge_adapters, train_lora
from tasks.base import Conversation, Memory, Message
from tasks.examples import (
    Example,
    clause_examples,
    drawn,
    general,
    in_turn,
    put,
    recitation_question,
    unanswerable_examples,
)

# Samples an epoch, as multiples of the number of memories, beside those of `ExampleConfig`
ASKED = 1.5  # questions
RECITED = 1.0  # paraphrased recitations


def sft_sample(backbone: Backbone, example: Example, quotes: bool = True) -> Sample:
    """question -> <think> clause, reasoning </think> answer; all after the prompt is learnt.

    quotes: False leaves the clause out of the think.
    """
    pieces = think_pieces(backbone, [example.clause] if quotes else [], example)
    return reply_sample(backbone, example.messages, pieces, "memory_full", example.source)


def recitation(backbone: Backbone, memory: Memory, rng: random.Random) -> Sample:
    """A paraphrased request for the clause -> its text."""
    question = recitation_question(memory, rng)
    think = "The user asks for the wording of one clause."
    pieces = answer_pieces(backbone, [think], memory.text)
    return reply_sample(backbone, [Message("user", question)], pieces, "memory_front", "clauses recited")


class SftMethod:
    """`Method` whose only memory is its weights: writing and forgetting mean fitting again."""

    def __init__(self, setup: MethodSetup, name: str = "sft") -> None:
        self.name = name
        self.setup = setup
        self.backbone = setup.backbone

    def _epochs(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> Iterator[list[list[Sample]]]:
        backbone, drawing, train = self.backbone, self.setup.examples, self.setup.train
        rng = random.Random(train.seed)
        examples = clause_examples(memories, drawing)
        conversations, unanswerable = general(sft), unanswerable_examples(sft)
        decks: dict[str, list[Example]] = {}
        size = len(memories)
        while True:
            order = rng.sample(list(memories), size)

            def asks(example: Example) -> Sample:
                return sft_sample(backbone, put(example, conversations, drawing, rng))

            asked = [order[i % size] for i in range(round(size * ASKED))]
            samples = [asks(in_turn(examples, m.id, decks, rng)) for m in asked if examples[m.id]]
            recited = [order[i % size] for i in range(round(size * RECITED))]
            samples += [recitation(backbone, memory, rng) for memory in recited]
            samples += [asks(e) for e in drawn(unanswerable, round(size * drawing.unanswerable), rng)]
            pure = drawn(conversations, max(8, round(size * drawing.sft_only)), rng)
            samples += [conversation_sample(backbone, conversation) for conversation in pure]
            yield length_grouped(samples, train.batch_tokens, rng)

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        started = time.perf_counter()
        log = train_lora(
            self.backbone,
            self._epochs(memories, sft),
            self.setup.train,
            stage=self.name,
            progress=self.setup.progress,
            adapter_to=self.setup.adapters / "sft",
            checkpoints=self.setup.checkpoint_of("sft"),
        )
        return self.setup.report(started, {"sft": log}, index_bytes=0, notes={})

    def _answer(self, ctxs: Sequence[Context], timed: bool) -> list[Answer]:
        clock = Clock(self.backbone.device, enabled=timed)
        with clock.stage("prompt"):
            prompts, cuts = prompts_for(self.backbone, ctxs)
        outputs = generate(
            self.backbone,
            prompts,
            [c.max_new_tokens for c in ctxs],
            sampling=self.setup.sampling,
            clock=clock,
        )
        pairs = zip(outputs, cuts, strict=True)
        return [answer_from(self.backbone, output, (), cut, "weights") for output, cut in pairs]

    def answer(self, ctx: Context) -> Answer:
        return self._answer([ctx], timed=True)[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        return self._answer(ctxs, timed=False)

    def models(self) -> tuple[Any, Any]:
        return self.backbone.model, None

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        raise RefitNeeded(
            f"{self.name}: knowledge in weights cannot be written without training; fit again with the new set"
        )

    def forget(self, ids: Sequence[str]) -> None:
        raise RefitNeeded(
            f"{self.name}: knowledge in weights cannot be removed without training; fit again without it"
        )

    def save(self, path: Path) -> None:
        """The adapter; the base weights are not copied."""
        self.setup.copy_adapters(path)

    def load(self, path: Path) -> None:
        """Restores a saved fit onto an untouched backbone of the same model."""
        merge_adapters(self.backbone, [path / "adapters" / "sft"])
