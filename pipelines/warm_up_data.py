"""What a base learns once, before any rulebook: to think, to read, to decline, and to leave ordinary talk alone.

Short rules (`tasks.reading_rules`) and ordinary problems (`tasks.think_sft`), in one answer format. A passage is

    recited    in the think, as a recalled or a memorised clause does, bare or behind <recall>; given, not learnt
    open book  in the prompt among others, near misses first, as RAG sets them; the think begins with it
    plain      in the question, or in the talk before it; the think goes on from it

and is asked about each of its facts in one batch, behind a prompt more than once: what the questions begin with
alike is computed once (methods.packing). Now and then no passage at hand answers: then it is said so.
Whether to recall is not taught: that is a method's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from methods.backbone import Backbone
from methods.batches import row_tokens
from methods.chat import encode_pieces, encode_prompt
from methods.rag import Passage as Shown
from methods.rag import open_book
from methods.samples import Sample, conversation_sample, recall_pieces, supervised, think_pieces
from methods.sft import sft_sample
from tasks.base import NO_CLAUSE_ANSWER, NO_CLAUSE_THINK, Conversation, Message
from tasks.chains import said
from tasks.examples import Example, ExampleConfig, later_turn, talk_before
from tasks.reading_rules import Fact, Passage, Rule, ask, draw_passage, reasoning, rules
from tasks.think_sft import general_conversations

PASSAGES = 64  # rules an epoch
NUM_ORDINARY = 800  # conversations that are drawn at once
ORDINARY = 0.3  # ordinary conversations, as a multiple of the questions on passages
TOGETHER = 6  # ordinary conversations that stay in one batch
RECITED, OPEN_BOOK = 0.55, 0.3  # shares of the passages; the others are plain
WORDINGS = 2  # questions on a fact behind one prompt
MARKED = 0.5  # of the recited: behind <recall>
BRIEF = 0.5  # chains that only say what stands there, as a question without a chain of its own gets
DECLINED = 0.08  # open books without the passage that answers
IDLE = 0.15  # ordinary conversations behind passages
BESIDE = 3  # passages at most beside the one that answers
LATER = 0.15  # questions put as a later turn
TALK = ExampleConfig(history_probability=0.15)  # before the others
LAYOUTS = ("{text} {asked}", "{text}\n{asked}", "Rule: {text}\nQuestion: {asked}", "{asked}\n\n{text}")
TOLD = ("Please keep this in mind: {text}", "{text}", "For later: {text}", "I have a text here. {text}")
NOTED = ("I have read it.", "Noted. What would you like to know?", "All right.", "Understood.")


def recited(backbone: Backbone, example: Example, marked: bool) -> Sample:
    """question -> <think> the text, given; then reasoning and answer, which are learnt."""
    clause = recall_pieces(backbone, example.clause, num_pads=0) if marked else [example.clause]
    given = encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", *clause])
    target = encode_pieces(backbone.tokenizer, think_pieces(backbone, clause, example))
    prompt = encode_prompt(backbone, example.messages)
    return supervised(prompt, target, "memory_full", target_loss_from=len(given), source="passages recited")


class WarmUpData:
    """Draws epochs of samples; the same seed draws the same."""

    def __init__(self, backbone: Backbone, batch_tokens: int, seed: int) -> None:
        self.backbone, self.batch_tokens = backbone, batch_tokens
        self.rng = random.Random(f"warm up/{seed}")
        self.ordinary: tuple[Conversation, ...] = ()
        self._rules: list[Rule] = []
        self._talk: list[Conversation] = []

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of batches."""
        while True:
            yield self.batches(self.epoch())

    def batches(self, groups: Sequence[list[Sample]]) -> list[list[Sample]]:
        """Whole groups of similar length, of at most `batch_tokens` together unless it is one, in any order."""
        longest = [max(map(len, group)) + self.rng.uniform(0, 12) for group in groups]
        batches: list[list[Sample]] = []
        room = 0
        for n in sorted(range(len(groups)), key=longest.__getitem__):
            tokens = row_tokens(groups[n])
            if tokens > room:
                batches.append([])
                room = self.batch_tokens
            batches[-1] += groups[n]
            room -= tokens
        self.rng.shuffle(batches)
        return batches

    def epoch(self) -> list[list[Sample]]:
        """Groups of samples that stay together: the questions on each of `PASSAGES` passages, ordinary talk."""
        if len(self._talk) < NUM_ORDINARY / 2:  # drawn anew: other numbers in the problems
            self.ordinary = general_conversations(self.rng.randrange(2**31), NUM_ORDINARY, 0)[0]
            self._talk = [*self.ordinary]
        if len(self._rules) < PASSAGES:
            trained = [rule for rule in rules() if not rule.held_out]
            self._rules += self.rng.sample(trained, len(trained))
        drawn = [self._passages(self._rules.pop()) for _ in range(PASSAGES)]
        everyone = [family[0] for family in drawn]
        groups = [self.asked(family, [p for p in everyone if p is not family[0]]) for family in drawn]
        talk = [self._talk.pop() for _ in range(round(ORDINARY * sum(map(len, groups))))]
        ordinary = [self.conversation(conversation, everyone) for conversation in talk]
        return [*groups, *(ordinary[n : n + TOGETHER] for n in range(0, len(ordinary), TOGETHER))]

    def _passages(self, rule: Rule) -> list[Passage]:
        """A passage, and near misses where something in the text tells them apart."""
        found: list[Passage] = []
        for _ in range(1 + (self.rng.randint(0, 2) if rule.variants else 0)):
            found.append(draw_passage(self.rng, rule, found))
        return found

    def asked(self, family: Sequence[Passage], others: Sequence[Passage]) -> list[Sample]:
        """Questions on all facts of a family's first, in one of the ways. others: passages of other rules."""
        rng, facts, way = self.rng, family[0].rule.facts, self.rng.random()
        if way < RECITED:
            examples = [self._put(self._example(fact, family)) for fact in facts]
            return [recited(self.backbone, example, rng.random() < MARKED) for example in examples]
        before = talk_before(self.ordinary, TALK, rng)
        examples = [self._put(self._example(fact, family), before) for fact in facts for _ in range(WORDINGS)]
        if way < RECITED + OPEN_BOOK:
            return self.open_book(examples, [*family[1:], *rng.sample(others, min(BESIDE, len(others)))])
        return self.plain(examples, family[0].text)

    def _put(self, example: Example, before: Sequence[Message] | None = None) -> Example:
        """As a later turn at times, else behind what is said before; None: by chance something, mostly nothing."""
        if self.rng.random() < LATER:
            return later_turn(example, self.ordinary, TALK, self.rng)
        talk = talk_before(self.ordinary, TALK, self.rng) if before is None else before
        return replace(example, messages=(*talk, *example.messages))

    def plain(self, examples: Sequence[Example], text: str) -> list[Sample]:
        """The passage told before all of the questions, or with each of them."""
        rng, told = self.rng, self.rng.random() < 0.5
        talk = Message("user", rng.choice(TOLD).format(text=text)), Message("assistant", rng.choice(NOTED))
        layout, samples = rng.choice(LAYOUTS), []
        for example in examples:
            *before, question = example.messages
            if told and not example.later:
                messages = (*before, *talk, question)
            else:
                messages = (*before, Message("user", layout.format(text=text, asked=question.content)))
            sample = sft_sample(self.backbone, replace(example, messages=tuple(messages)), quotes=False)
            samples.append(replace(sample, source="passages in the talk"))
        return samples

    def _example(self, fact: Fact, family: Sequence[Passage]) -> Example:
        """The fact of the family's first passage, the others being what a user may mix up with it."""
        rng, passage = self.rng, family[0]
        slot, named, answer = fact.slot, bool(passage.variant), passage.answers[fact.slot]
        brief = rng.random() < BRIEF
        leads = [
            (Message("user", ask(rng, p, fact, named=True)), Message("assistant", p.answers[slot]))
            for p in family[1:]
        ]
        return Example(
            messages=(Message("user", ask(rng, passage, fact, named=named)),),
            memory_id=passage.rule.name,
            clause=passage.text,
            reasoning=said(passage.text, passage.shown[slot], answer) if brief else reasoning(passage, fact),
            answer=answer,
            rivals=tuple(p.answers[slot] for p in family[1:] if p.answers[slot] != answer),
            leads=tuple(leads),
            variant=passage.variant,
        )

    def open_book(self, examples: Sequence[Example], beside: Sequence[Passage]) -> list[Sample]:
        """The passage among others, or only others: then nothing there answers."""
        rng, missing = self.rng, self.rng.random() < DECLINED
        texts = [p.text for p in beside[: rng.randint(missing, BESIDE)]]
        if missing:
            examples = [
                replace(example, clause=NO_CLAUSE_THINK, reasoning="", answer=NO_CLAUSE_ANSWER)
                for example in examples[::WORDINGS]
            ]
        else:
            texts.append(examples[0].clause)
        shown = [Shown("", text, 0.0) for text in rng.sample(texts, len(texts))]
        source = "nothing there answers" if missing else "passages in the prompt"
        samples = (sft_sample(self.backbone, replace(e, messages=open_book(e.messages, shown))) for e in examples)
        return [replace(sample, source=source) for sample in samples]

    def conversation(self, conversation: Conversation, passages: Sequence[Passage]) -> Sample:
        """An ordinary conversation; now and then passages that have nothing to do with it stand before it."""
        if self.rng.random() < IDLE:
            shown = [Shown("", p.text, 0.0) for p in self.rng.sample(passages, self.rng.randint(1, BESIDE))]
            messages = (*open_book(conversation.messages[:-1], shown), conversation.messages[-1])
            conversation = replace(conversation, messages=messages)
        return conversation_sample(self.backbone, conversation)
