"""The general SFT corpus: short conversations with a real chain of thought, drawn by seed.

It gives every method the same `<think>` format and the same ordinary abilities to keep. Its held-out
part is never trained on; ordinary turns and dialogue fillers come from there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from tasks.base import Conversation, Message, TaskError, assistant_content
from tasks.reading_rules import held_out
from tasks.think_problems import DATA, Form, Problem, makers_of, whole_passages
from tasks.think_problems import TOPICS as DRAWN

SMALL_TALK = DATA / "small_talk.jsonl"
TOPICS = (*DRAWN, "small_talk")
FILLER_TOPICS = ("small_talk", "arithmetic", "dates", "rewriting", "table_lookup")
READING_SHARE = 4  # one conversation in so many is about a short rule
SECOND_TURN_EVERY = 12  # one arithmetic conversation in so many goes on for a second turn
IN_ENGLISH = "The general conversations, and with them the fillers of the dialogues, are in English."
MAX_TRIES = 400  # draws without a new problem after which a topic counts as exhausted

Exchange = tuple[str, str, str]  # user, chain, answer


@dataclass(frozen=True)
class Filler:
    """One exchange of small talk or a solved problem, to stand between the asks of a dialogue."""

    topic: str
    user: str
    reply: str  # the final answer only, as a dialogue's history holds it


@cache
def small_talk() -> tuple[tuple[Exchange, ...], ...]:
    """The hand-written conversations, each of one or two exchanges."""
    lines = SMALL_TALK.read_text(encoding="utf-8").splitlines()
    return tuple(
        tuple((turn["user"], turn["think"], turn["answer"]) for turn in json.loads(line)["turns"])
        for line in lines
    )


def _problem_exchanges(problem: Problem) -> tuple[Exchange, ...]:
    steps = (problem,) if problem.after is None else (problem, problem.after)
    return tuple((step.question, step.chain, step.answer) for step in steps)


def draw_problems(topic: str, count: int, seed: int, heldout: bool) -> tuple[Problem, ...]:
    """`count` problems of a topic; a shorter draw is the beginning of a longer one.

    No problem comes twice, however it is worded, and what is held out is so for every seed.
    """
    rng = random.Random(f"think/{topic}/{seed}")
    makers, problems, misses = makers_of(topic, rng, heldout), list[Problem](), 0
    seen: set[Form] = set()
    while len(problems) < count:
        # Makers take turns; where one has run out, any of the others may step in.
        maker = makers[len(problems) % len(makers)] if misses < MAX_TRIES // 2 else rng.choice(makers)
        problem = maker(rng)
        if problem.form in seen or problem.held_out != heldout:
            misses += 1
            if misses == MAX_TRIES:
                raise TaskError(
                    f"general corpus: topic {topic!r} has about {len(problems)} different problems and "
                    f"{count} are asked for; lower num_train or num_heldout"
                )
            continue
        seen.add(problem.form)
        misses = 0
        if topic == "arithmetic" and len(problems) % SECOND_TURN_EVERY == SECOND_TURN_EVERY - 1:
            problem = problem.continued(rng.randint(2, 30))
        problems.append(problem)
    return tuple(problems)


def _shares(total: int, capacity: int) -> dict[str, int]:
    """How many conversations each topic gives: a quarter to reading, then equal parts.

    Small talk gives at most `capacity`.
    """
    reading = total // READING_SHARE
    talk = min(capacity, (total - reading) // (len(TOPICS) - 1))
    others = [topic for topic in DRAWN if topic != "reading"]
    each, extra = divmod(total - reading - talk, len(others))
    return {"small_talk": talk, "reading": reading, **{t: each + (n < extra) for n, t in enumerate(others)}}


def _conversation(conversation_id: str, topic: str, exchanges: Sequence[Exchange]) -> Conversation:
    messages: list[Message] = []
    for user, chain, answer in exchanges:
        messages += [Message("user", user), Message("assistant", assistant_content(chain, answer))]
    return Conversation(conversation_id, tuple(messages), topic=topic)


def general_conversations(
    seed: int = 0, num_train: int = 600, num_heldout: int = 120
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(train, held-out) over all topics, no question twice in either or both.

    The held-out part does not depend on `num_train`.
    """
    return _drawn("train", num_train, seed), _drawn("heldout", num_heldout, seed)


def _drawn(part: str, count: int, seed: int) -> tuple[Conversation, ...]:
    heldout = part == "heldout"
    talk = [exchanges for exchanges in small_talk() if held_out(exchanges[0][0]) == heldout]
    random.Random(f"think/small_talk/{seed}").shuffle(talk)
    conversations: list[Conversation] = []
    for topic, share in _shares(count, len(talk)).items():
        problems = draw_problems(topic, share, seed, heldout) if topic in DRAWN else ()
        for n, exchanges in enumerate([_problem_exchanges(problem) for problem in problems] or talk[:share]):
            conversation = _conversation(f"{part}/{topic}/{n}", topic, exchanges)
            conversations.append(_with_passage(conversation, problems[n]) if problems else conversation)
    random.Random(f"think/order/{part}/{seed}").shuffle(conversations)
    return tuple(conversations)


def further_conversations(
    topics: Sequence[str], each: int, drawn: Mapping[str, int], seed: int = 0
) -> tuple[Conversation, ...]:
    """`each` more held-out conversations of some topics behind those that a corpus of this seed holds out.

    drawn: topic -> how many it holds out.
    """
    return tuple(
        _conversation(f"further/{topic}/{n}", topic, _problem_exchanges(problem))
        for topic in topics
        for n, problem in enumerate(draw_problems(topic, drawn.get(topic, 0) + each, seed, heldout=True))
        if n >= drawn.get(topic, 0)
    )


def reading_conversations(seed: int = 0, num_train: int = 600) -> tuple[Conversation, ...]:
    """Passages with a question on each of their facts: beside `num_train` general conversations half as many
    passages, but of each rule one at most.

    Several questions on one text are told apart by their words alone, which is what reading a clause asks for.
    """
    return tuple(
        _with_passage(
            replace(_conversation(f"reading/{n}", "reading", _problem_exchanges(problem)), kind="reading"), problem
        )
        for n, problem in enumerate(whole_passages(num_train // 2, seed))
    )


def sft_corpus(
    seed: int = 0, num_train: int = 600, num_heldout: int = 120
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(what every task trains on beside its own, held-out): general conversations and, for training, reading."""
    train, heldout = general_conversations(seed, num_train, num_heldout)
    return (*train, *reading_conversations(seed, num_train)), heldout


def _with_passage(conversation: Conversation, problem: Problem) -> Conversation:
    return replace(conversation, passage=problem.passage, question=problem.asked, passage_kind=problem.rule)


def final_answer(content: str) -> str:
    """What follows the chain in an assistant content of this corpus."""
    return content.partition("</think>")[2].strip()


def chain_of_thought(content: str) -> str:
    """The chain in an assistant content of this corpus."""
    return content.partition("</think>")[0].removeprefix("<think>").strip()


def filler_exchanges(heldout: Sequence[Conversation], seed: int = 0) -> tuple[Filler, ...]:
    """Fillers from held-out conversations, so that nothing trained on occurs; the five kinds take turns."""
    rng = random.Random(f"fillers/{seed}")
    pools = []
    for topic in FILLER_TOPICS:
        pool = [
            Filler(topic, c.messages[0].content, final_answer(c.messages[1].content))
            for c in heldout
            if c.topic == topic
        ]
        pools.append(rng.sample(pool, len(pool)))
    most = max(map(len, pools))
    return tuple(pool[n] for n in range(most) for pool in pools if n < len(pool))
