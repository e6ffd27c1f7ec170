"""LoRA SFT: the knowledge is trained into the weights; the think recites the clause, then reasons."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from methods.answering import answer_from, prompts_for
from methods.augment import answered, augmented
from methods.backbone import Backbone
from methods.base import Answer, Context, FitReport, RefitNeeded, WriteReport
from methods.chat import IGNORE, Sample, answer_pieces, encode_pieces, encode_prompt, supervised
from methods.decode import Clock, generate
from methods.examples import (
    Example,
    clause_examples,
    general,
    reading_examples,
    unanswerable_examples,
)
from methods.samples import conversation_sample, think_pieces
from methods.setup import MethodSetup
from methods.shapes import Shapes, shape_of
from methods.train import merge_adapters, train_lora
from methods.turns import Turn, conversation_turn, example_turn, turn_batches
from tasks.base import Conversation, Memory, Message


@dataclass(frozen=True)
class SftConfig:
    """The same shared examples and the same general conversations as every method."""

    knowledge: bool = True  # False: the control arm `none`, which never sees a clause
    asked: float = 1.5  # questions an epoch, per memory
    recited: float = 1.0  # paraphrased recitations an epoch, per memory
    sft_only: float = 0.75
    unanswerable: float = 0.15
    # Questions an epoch on the corpus's own passages, per memory; the passage is quoted, not learnt. Off: their
    # tokens are the clauses' as well
    reading: float = 0.0


# Ways to ask for a clause as a whole: the paraphrases that make SFT strong (Ovadia et al. 2023,
# arXiv:2312.05934).
RECITATIONS = (
    "What does the handbook say about {title}?",
    "Please quote the rule on {title}.",
    "Tell me the clause titled {title}.",
    "How does the rule on {title} go?",
    "I need the exact wording of {title}.",
    "Recite {title} from the handbook.",
)


def sft_sample(backbone: Backbone, example: Example) -> Sample:
    """question -> <think> clause, reasoning </think> answer; all after the prompt is learnt."""
    prompt = encode_prompt(backbone, example.messages)
    target = encode_pieces(backbone.tokenizer, think_pieces(backbone, [example.clause], example))
    return supervised(prompt, target, "memory_full")


def read_sample(backbone: Backbone, example: Example) -> Sample:
    """As `sft_sample`, but only what follows the clause is learnt: how a text is read, not the text."""
    sample = sft_sample(backbone, example)
    opening = encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", example.clause])
    unread = sample.labels.index(backbone.ids.think) + len(opening)
    return replace(sample, labels=(IGNORE,) * unread + sample.labels[unread:])


def recitation_turn(backbone: Backbone, memory: Memory, rng: random.Random) -> Turn:
    """A paraphrased request for the clause -> its text; too long to stand before later turns."""
    subject = memory.title or " ".join(memory.text.split()[:6])
    question = rng.choice(RECITATIONS).format(title=subject[0].lower() + subject[1:])
    think = "The user asks for the wording of one clause."
    target = encode_pieces(backbone.tokenizer, answer_pieces(backbone, [think], memory.text))

    def sample(said: tuple[Message, ...]) -> Sample:
        return supervised(encode_prompt(backbone, said), target, "memory_front")

    return Turn((Message("user", question),), "", sample)


class SftMethod:
    """`Method` whose only memory is its weights: writing and forgetting mean fitting again."""

    def __init__(self, setup: MethodSetup, config: SftConfig | None = None, name: str = "sft") -> None:
        self.name = name
        self.setup = setup
        self.backbone = setup.backbone
        self.config = config or SftConfig()

    def _epochs(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> Iterator[list[list[Sample]]]:
        config, backbone, setup = self.config, self.backbone, self.setup
        rng = random.Random(setup.train.seed)
        examples = clause_examples(memories, setup.examples)
        conversations = general(sft)
        unanswerable, reading = unanswerable_examples(sft), reading_examples(sft)
        talk = answered(examples)
        decks: dict[str, list[Example]] = {m.id: [] for m in memories}
        learnt, passage = partial(sft_sample, backbone), partial(read_sample, backbone)
        while True:
            size = len(memories)
            order = rng.sample(list(memories), size)
            turns: list[Turn] = []
            for i in range(round(size * config.asked)):
                memory = order[i % size]
                if not examples[memory.id]:
                    continue
                if not decks[memory.id]:
                    decks[memory.id] = rng.sample(examples[memory.id], len(examples[memory.id]))
                example = augmented(decks[memory.id].pop(), conversations, setup.examples, rng, talk)
                turns.append(example_turn(example, learnt))
            recited = (order[i % size] for i in range(round(size * config.recited)))
            turns += [recitation_turn(backbone, memory, rng) for memory in recited]
            nulls = rng.sample(unanswerable, min(len(unanswerable), round(size * config.unanswerable)))
            turns += [example_turn(augmented(e, conversations, setup.examples, rng, talk), learnt) for e in nulls]
            read = rng.sample(reading, min(len(reading), round(size * config.reading)))
            turns += [example_turn(augmented(e, conversations, setup.examples, rng, talk), passage) for e in read]
            pure = rng.sample(conversations, min(len(conversations), max(8, round(size * config.sft_only))))
            turns += [conversation_turn(c, partial(conversation_sample, backbone)) for c in pure]
            yield turn_batches(backbone, turns, setup.examples.dialogue_turns, setup.train.batch_tokens, rng)

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        started = time.perf_counter()
        if not self.config.knowledge:
            memories, sft = (), general(sft)
        log = train_lora(
            self.backbone,
            self._epochs(memories, sft),
            self.setup.train,
            stage=self.name,
            progress=self.setup.progress,
            adapter_to=self.setup.adapters / "sft",
        )
        return FitReport(
            seconds=time.perf_counter() - started,
            forward_tokens=log.forward_tokens,
            optimizer_steps=log.optimizer_steps,
            bytes_stored=self.setup.adapter_bytes,
            index_bytes=0,
            curves={f"sft/{k}": tuple(v) for k, v in log.losses.items()},
        )

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
        return [answer_from(self.backbone, out, (), cut) for out, cut in zip(outputs, cuts, strict=True)]

    def answer(self, ctx: Context) -> Answer:
        return self._answer([ctx], timed=True)[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        return self._answer(ctxs, timed=False)

    def shapes(self) -> Shapes:
        return Shapes(shape_of(self.backbone.model))

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
