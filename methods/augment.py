"""How a training question is put: what is said before it and around it, drawn anew each time it is seen.

In a conversation a question comes after other talk, with a wrong value claimed beside it, or in half a sentence.
Every method can train on such turns (`ExampleConfig`); their wordings are others than those of the held-out
dialogues (`tasks.dialogues`), or those would be trained on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from methods.examples import Example, ExampleConfig, plain_messages
from tasks.base import Conversation, Language, Message
from tasks.chinese import is_chinese

CLAIMS: dict[Language, tuple[str, ...]] = {
    "en": (
        "I thought it was {rival}. {question}",
        "My notes say {rival}. {question}",
        "{question} I believe {rival}.",
        "Is it {rival}? {question}",
        "On my shift they swear it is {rival}. {question}",
    ),
    "zh": ("我以为是{rival}。{question}", "我的笔记上写着{rival}。{question}", "{question}我觉得是{rival}。"),
}
FOLLOW_UPS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Suppose it were {variant}?",
        "The same for {variant}, please.",
        "Now {variant}?",
        "How is it for {variant}?",
    ),
    "zh": ("{variant}又怎样？", "换成{variant}呢？"),
}
AGAIN: dict[Language, tuple[str, ...]] = {
    "en": (
        "{question}",
        "I forgot. {question}",
        "Again, please. {question}",
        "{question} I have lost my notes.",
        "Tell me one more time. {question}",
    ),
    "zh": ("{question}", "我忘了。{question}", "请再说一次。{question}", "{question}我的笔记丢了。"),
}


def augmented(
    example: Example,
    conversations: Sequence[Conversation],
    config: ExampleConfig,
    rng: random.Random,
    exchanges: Sequence[Example] = (),
) -> Example:
    """The example as training sees it once. exchanges: as in `talk_before`."""
    language = _language(example)
    if config.follow_up_probability and example.leads and rng.random() < config.follow_up_probability:
        asked = rng.choice(FOLLOW_UPS[language]).format(variant=example.variant)
        messages = (*rng.choice(example.leads), Message("user", asked))
    else:
        question = _thinned(example.messages[-1].content, config, rng)
        if config.claim_probability and example.rivals and rng.random() < config.claim_probability:
            claim = rng.choice(CLAIMS[language])
            question = claim.format(rival=rng.choice(example.rivals), question=question)
        messages = (*example.messages[:-1], Message("user", question))
    return replace(example, messages=talk_before(conversations, config, rng, exchanges) + messages)


def later_turn(
    example: Example,
    conversations: Sequence[Conversation],
    config: ExampleConfig,
    rng: random.Random,
    exchanges: Sequence[Example] = (),
) -> Example:
    """The question where a conversation has come to it before: asked again, against a claim, or following on.

    Asked again, its own exchange stands in the history, as often as not with other talk behind it. An example
    without answer, rivals and leads is put as in `augmented`. exchanges: as in `talk_before`.
    """
    forms = ["again"] * bool(example.answer) + ["claim"] * bool(example.rivals) + ["follow"] * bool(example.leads)
    form = rng.choice(forms) if forms else ""
    if form != "again":
        forced = replace(
            config, claim_probability=float(form == "claim"), follow_up_probability=float(form == "follow")
        )
        return augmented(example, conversations, forced, rng, exchanges)
    between = plain_messages(rng.choice(conversations)) if rng.random() < 0.5 else ()
    question = _thinned(example.messages[-1].content, config, rng)
    asked = rng.choice(AGAIN[_language(example)]).format(question=question)
    exchange = (*example.messages, Message("assistant", example.answer))
    return replace(example, messages=(*exchange, *between, Message("user", asked)))


def talk_before(
    conversations: Sequence[Conversation],
    config: ExampleConfig,
    rng: random.Random,
    exchanges: Sequence[Example] = (),
) -> tuple[Message, ...]:
    """What is said before a question, mostly nothing: conversations, and `exchanges`, questions answered.

    Drawn alike before questions on clauses and before openings (`methods.recall.calibrated`), so that it does not
    tell which comes. In a dialogue (`methods.turns`) it stands between a turn and those before it.
    """
    if rng.random() >= config.history_probability:
        return ()
    most = config.history_conversations
    talk: tuple[Message, ...] = ()
    for _ in range(rng.randint(1, most) if most > 1 else 1):
        if exchanges and config.history_asked and rng.random() < config.history_asked:
            example = rng.choice(exchanges)
            talk = (*example.messages, Message("assistant", example.answer), *talk)
        else:
            talk = plain_messages(rng.choice(conversations)) + talk
    return talk


def answered(examples: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The examples by clause that have an answer, which talk may hold."""
    return [example for found in examples.values() for example in found if example.answer]


def _language(example: Example) -> Language:
    return "zh" if is_chinese(example.messages[-1].content) else "en"


def _thinned(question: str, config: ExampleConfig, rng: random.Random) -> str:
    """Every other question loses some words; those with a capital or a digit tell near misses apart and stay."""
    if not config.word_dropout or rng.random() >= 0.5:
        return question
    words = question.split()
    kept = [w for w in words if rng.random() >= config.word_dropout or re.search(r"[A-Z\d]", w)]
    return " ".join(kept or words)
