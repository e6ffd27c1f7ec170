"""Training samples as turns of dialogues, as questions come in use: behind other talk, whatever it was about.

A dialogue's turns share all that was said before (`methods.batches`), so talk costs each of them a few tokens;
alone, every sample pays for its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from methods.backbone import Backbone
from methods.batches import Row, can_share, dialogues_grouped
from methods.chat import Sample
from methods.examples import Example, plain_messages
from tasks.base import Conversation, Message


@dataclass(frozen=True)
class Turn:
    """One sample to be, which may stand behind others."""

    messages: tuple[Message, ...]  # the user's last, behind what it refers to
    reply: str  # what later turns see as its answer; "": they see nothing of this turn
    sample: Callable[[tuple[Message, ...]], Sample]  # given the whole conversation as far as its last message

    @property
    def exchange(self) -> tuple[Message, ...]:
        return (*self.messages, Message("assistant", self.reply)) if self.reply else ()


def example_turn(example: Example, sample: Callable[[Example], Sample]) -> Turn:
    """A question; later turns see its answer."""
    return Turn(example.messages, example.answer, lambda said: sample(replace(example, messages=said)))


def conversation_turn(conversation: Conversation, sample: Callable[[Conversation], Sample]) -> Turn:
    """A whole conversation, whose last reply is learnt."""
    *said, reply = plain_messages(conversation)
    spoken = conversation.messages[-1]
    return Turn(tuple(said), reply.content, lambda said: sample(replace(conversation, messages=(*said, spoken))))


def as_dialogues(turns: Sequence[Turn], max_turns: int, max_tokens: int, rng: random.Random) -> list[list[Sample]]:
    """Every turn once, in random order: dialogues of 1 to `max_turns`, each of at most `max_tokens` in one row.

    max_turns 1: each sample alone, in the order given. A turn over the limit is a dialogue of its own.
    """
    if max_turns == 1:
        return [[turn.sample(turn.messages)] for turn in turns]
    dialogues: list[list[Sample]] = []
    waiting = rng.sample(list(turns), len(turns))
    while waiting:
        row, said = Row(), tuple[Message, ...]()
        for turn in waiting[: rng.randint(1, max_turns)]:
            sample = turn.sample(said + turn.messages)
            if row.samples and len(row) + len(sample) - row.shared(sample)[0] > max_tokens:
                break
            row.add(sample)
            said += turn.exchange
        dialogues.append(row.samples)
        waiting = waiting[len(row.samples) :]
    return dialogues


def turn_batches(
    backbone: Backbone, turns: Sequence[Turn], max_turns: int, batch_tokens: int, rng: random.Random
) -> list[list[Sample]]:
    """An epoch's batches: the turns as dialogues, each of which stays in one batch."""
    dialogues = as_dialogues(turns, max_turns, batch_tokens, rng)
    return dialogues_grouped(dialogues, batch_tokens, rng, can_share(backbone.model))
