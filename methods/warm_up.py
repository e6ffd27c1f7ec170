"""What a base learns once, before any rulebook: to think, to read, to decline, and to leave ordinary talk alone.

Short rules (`tasks.reading_rules`) and ordinary problems (`tasks.think_sft`), in the one answer format. A rule is

    recited    in the think, as a recalled or a memorised clause does, bare or behind <recall>; given, not learnt
    open book  in the prompt among others, near misses first, as RAG sets them; the think begins with it
    plain      in the question, or in the talk before it; the think goes on from it

and all facts of a passage are asked in one epoch. Now and then no passage at hand answers: then it is said so.
Whether to recall is not taught: that is a method's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from methods.backbone import Backbone
from methods.batches import length_grouped
from methods.chat import Piece, Sample, encode_pieces, encode_prompt, supervised
from methods.examples import Example, ExampleConfig, conversation_sample, put, recall_pieces, think_pieces
from methods.rag import Passage as Shown
from methods.rag import open_book
from methods.sft import sft_sample
from tasks.base import NO_CLAUSE_ANSWER, NO_CLAUSE_THINK, Conversation, Message
from tasks.chains import pointed
from tasks.reading_rules import Fact, Passage, Rule, ask, draw_passage, reasoning, rules
from tasks.think_sft import general_conversations

PASSAGES = 64  # rules an epoch
NUM_ORDINARY = 800  # conversations that are drawn at once
ORDINARY = 0.45  # ordinary conversations, as a multiple of the questions on passages
RECITED, OPEN_BOOK = 0.45, 0.35  # shares of the questions; the others are plain
MARKED = 0.5  # of the recited: behind <recall>
POINTED = 0.3  # chains that only point to the words, as a question without a chain of its own gets
DECLINED = 0.08  # questions whose passage is taken away
IDLE = 0.15  # ordinary conversations behind passages
BESIDE = 3  # passages at most beside the one that answers
DRAWING = ExampleConfig(history_probability=0.15, later_turns=0.2)
LAYOUTS = ("{text} {asked}", "{text}\n{asked}", "Rule: {text}\nQuestion: {asked}", "{asked}\n\n{text}")
TOLD = ("Please keep this in mind: {text}", "{text}", "For later: {text}", "I have a text here. {text}")
NOTED = ("I have read it.", "Noted. What would you like to know?", "All right.", "Understood.")


def recited(backbone: Backbone, example: Example, marked: bool) -> Sample:
    """question -> <think> the text, given; then reasoning and answer, which are learnt."""
    clause = marked_text(backbone, example.clause) if marked else [example.clause]
    given = encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", *clause])
    target = encode_pieces(backbone.tokenizer, think_pieces(backbone, clause, example))
    prompt = encode_prompt(backbone, example.messages)
    return supervised(prompt, target, "memory_full", target_loss_from=len(given), source="passages recited")


def marked_text(backbone: Backbone, text: str) -> list[Piece]:
    """A text as a recall gives it where no vector stands for it."""
    return recall_pieces(backbone, text, num_pads=0)


class WarmUpData:
    """Draws epochs of samples; the same seed draws the same."""

    def __init__(self, backbone: Backbone, batch_tokens: int, seed: int) -> None:
        self.backbone, self.batch_tokens = backbone, batch_tokens
        self.rng = random.Random(f"warm up/{seed}")
        self.ordinary: tuple[Conversation, ...] = ()
        self._rules: list[Rule] = []
        self._talk: list[Conversation] = []

    def epochs(self) -> Iterator[list[list[Sample]]]:
        """Endless epochs of length-grouped batches."""
        while True:
            yield length_grouped(self.epoch(), self.batch_tokens, self.rng)

    def epoch(self) -> list[Sample]:
        """All facts of `PASSAGES` passages, and ordinary conversations."""
        if len(self._talk) < PASSAGES:  # drawn anew: other numbers in the problems
            self.ordinary = general_conversations(self.rng.randrange(2**31), NUM_ORDINARY, 0)[0]
            self._talk = [*self.ordinary]
        if len(self._rules) < PASSAGES:
            trained = [rule for rule in rules() if not rule.held_out]
            self._rules += self.rng.sample(trained, len(trained))
        drawn = [self._passages(self._rules.pop()) for _ in range(PASSAGES)]
        everyone = [family[0] for family in drawn]
        samples = [
            self.asked(fact, family, [p for p in everyone if p is not family[0]])
            for family in drawn
            for fact in family[0].rule.facts
        ]
        talk = [self._talk.pop() for _ in range(min(len(self._talk), round(ORDINARY * len(samples))))]
        return [*samples, *(self.conversation(c, everyone) for c in talk)]

    def _passages(self, rule: Rule) -> list[Passage]:
        """A passage, and near misses where something in the text tells them apart."""
        found: list[Passage] = []
        for _ in range(1 + (self.rng.randint(0, 2) if rule.variants else 0)):
            found.append(draw_passage(self.rng, rule, found))
        return found

    def asked(self, fact: Fact, family: Sequence[Passage], others: Sequence[Passage]) -> Sample:
        """A question on the first of a family, in one of the ways. others: passages of other rules."""
        rng, passage = self.rng, family[0]
        example = put(self._example(fact, family), self.ordinary, DRAWING, rng)
        way = rng.random()
        if way < RECITED:
            return recited(self.backbone, example, rng.random() < MARKED)
        if way < RECITED + OPEN_BOOK:
            return self.open_book(example, [*family[1:], *rng.sample(others, min(BESIDE, len(others)))])
        asked = example.messages[-1].content
        if rng.random() < 0.5 and len(example.messages) == 1:
            told = Message("user", rng.choice(TOLD).format(text=passage.text))
            messages: tuple[Message, ...] = (told, Message("assistant", rng.choice(NOTED)), *example.messages)
        else:
            layout = rng.choice(LAYOUTS).format(text=passage.text, asked=asked)
            messages = (*example.messages[:-1], Message("user", layout))
        plain = replace(example, messages=messages)
        return replace(sft_sample(self.backbone, plain, quotes=False), source="passages in the talk")

    def _example(self, fact: Fact, family: Sequence[Passage]) -> Example:
        """The fact of the family's first passage, the others being what a user may mix up with it."""
        rng, passage = self.rng, family[0]
        slot, named = fact.slot, bool(passage.variant)
        pointing = pointed(passage.text, passage.shown[slot], passage.answers[slot])
        leads = [
            (Message("user", ask(rng, p, fact, named=True)), Message("assistant", p.answers[slot]))
            for p in family[1:]
        ]
        return Example(
            messages=(Message("user", ask(rng, passage, fact, named=named)),),
            memory_id=passage.rule.name,
            clause=passage.text,
            reasoning=pointing if rng.random() < POINTED else reasoning(passage, fact),
            answer=passage.answers[slot],
            rivals=tuple(p.answers[slot] for p in family[1:] if p.answers[slot] != passage.answers[slot]),
            leads=tuple(leads),
            variant=passage.variant,
        )

    def open_book(self, example: Example, beside: Sequence[Passage]) -> Sample:
        """The passage among others, or only others: then nothing there answers."""
        rng, missing = self.rng, self.rng.random() < DECLINED
        texts = [p.text for p in beside[: rng.randint(missing, BESIDE)]]
        if missing:
            example = replace(example, clause=NO_CLAUSE_THINK, reasoning="", answer=NO_CLAUSE_ANSWER)
        else:
            texts.append(example.clause)
        shown = [Shown("", text, 0.0) for text in rng.sample(texts, len(texts))]
        sample = sft_sample(self.backbone, replace(example, messages=open_book(example.messages, shown)))
        return replace(sample, source="nothing there answers" if missing else "passages in the prompt")

    def conversation(self, conversation: Conversation, passages: Sequence[Passage]) -> Sample:
        """An ordinary conversation; now and then passages that have nothing to do with it stand before it."""
        if self.rng.random() < IDLE:
            shown = [Shown("", p.text, 0.0) for p in self.rng.sample(passages, self.rng.randint(1, BESIDE))]
            messages = (*open_book(conversation.messages[:-1], shown), conversation.messages[-1])
            conversation = replace(conversation, messages=messages)
        return conversation_sample(self.backbone, conversation)
