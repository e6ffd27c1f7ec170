"""The examples that every method shares: which questions there are, and how each is put anew when it is seen."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from tasks.base import NO_CLAUSE_ANSWER, QA, Conversation, Memory, Message, TaskError, split_think
from tasks.dialogues import CONTRADICTIONS, RE_ASKS
from tasks.examples import (
    AGAIN,
    CLAIMS,
    FOLLOW_UPS,
    Example,
    ExampleConfig,
    augmented,
    clause_examples,
    general,
    in_turn,
    later_turn,
    plain_messages,
    put,
    reading_examples,
    talk_before,
    unanswerable_examples,
)
from tasks.registry import load_task
from tasks.self_cues import self_made_questions

ALL = load_task("regs")
LISBON = Memory("1", "Staff get 31 euros per day. On the 19th Ana Reis pays it.", "Meals, Lisbon")


def made(memory: Memory, limit: int) -> list[Example]:
    """Of an uncued clause."""
    return clause_examples([replace(memory, cues=())], ExampleConfig(self_cues=limit))[memory.id]


def test_a_self_made_question_leads_to_its_clause_and_no_further() -> None:
    for memory in ALL.memories:
        assert [e.messages for e in made(memory, 3)] == [
            (Message("user", question),) for question in self_made_questions(memory, 3)
        ]
        for example in made(memory, 3):
            assert (example.memory_id, example.clause) == (memory.id, memory.text)
            assert example.answer == example.reasoning == ""  # an answer by rule would teach any fact


def test_cues_come_first_and_self_made_ones_beside_them() -> None:
    cue = QA("q", "What is paid for meals?", "31 euros", ("1",), think="It is there.")
    cued = Memory("1", LISBON.text, LISBON.title, (cue,))
    uncued = Memory("2", LISBON.text, LISBON.title)
    plain = Memory("3", "Be kind to guests.")
    examples = clause_examples([cued, uncued, plain], ExampleConfig(self_cues=2))
    assert {key: len(found) for key, found in examples.items()} == {"1": 2, "2": 2, "3": 0}
    first = examples["1"][0]
    assert first.messages == (Message("user", cue.question),)
    assert (first.reasoning, first.answer, first.clause) == ("It is there.", "31 euros", LISBON.text)
    none = clause_examples([cued, uncued], ExampleConfig(self_cues=0))
    assert {key: len(found) for key, found in none.items()} == {"1": 1, "2": 0}  # the cue alone


def test_held_out_questions_are_never_trained_on() -> None:
    asked = {qa.question for qa in ALL.questions}
    examples = clause_examples(ALL.memories, ExampleConfig(self_cues=99))
    trained = {e.messages[-1].content for found in examples.values() for e in found}
    assert not asked & trained


def test_abstention_examples() -> None:
    examples = unanswerable_examples(ALL.sft)
    assert len(examples) == sum(c.kind == "unanswerable" for c in ALL.sft) > 0
    assert {(e.memory_id, e.answer) for e in examples} == {("", NO_CLAUSE_ANSWER)}
    assert all(e.messages[-1].role == "user" for e in examples)


def test_without_general_conversations_there_is_no_fit() -> None:
    assert all(c.kind == "general" for c in general(ALL.sft))
    with pytest.raises(TaskError, match="general SFT conversations"):
        general([c for c in ALL.sft if c.kind == "unanswerable"])


TWO_TURNS = Conversation(
    "c",
    (
        Message("user", "1 + 1?"),
        Message("assistant", "<think>\nOne more is two.\n</think>\n2"),
        Message("user", "And 1 more?"),
        Message("assistant", "<think>\nThree.\n</think>\n3"),
    ),
)


def test_a_history_holds_no_think() -> None:
    assert [m.content for m in plain_messages(TWO_TURNS.messages)] == ["1 + 1?", "2", "And 1 more?", "3"]


def test_reading_examples_take_the_passage_out_of_the_question() -> None:
    examples = reading_examples(ALL.sft)
    assert len(examples) > 50
    clauses = {m.text for m in ALL.memories}
    for example in examples:
        assert example.clause not in example.messages[-1].content
        assert example.clause not in clauses  # no clause is taught on the side
        assert example.answer
        assert example.memory_id not in {m.id for m in ALL.memories}
    texts: dict[str, set[str]] = {}
    for example in examples:
        texts.setdefault(example.memory_id, set()).add(example.clause)
    assert all(len(found) == 1 for found in texts.values())  # one id, one text


# How a question is put.


BARE = ExampleConfig(history_probability=0.0)
MEALS = Memory("1", "Staff get 31 euros per day.", "Meals, Lisbon")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word is left out."""
    monkeypatch.setattr("tasks.examples.WORD_DROPOUT", 0.0)


def clause(place: str, days: str, slot: str = "days") -> Memory:
    cue = QA(f"{place}/q", f"How many days in {place}?", days, (place,), slot=slot)
    return Memory(place, f"In {place} it is {days}.", f"Holiday, {place}", (cue,), "holiday", f"the {place} site")


FAMILY = (
    clause("Cork", "3 days"),
    clause("Bergen", "4 days"),
    clause("Gdansk", "3 days"),
    clause("Porto", "9 days", slot="notice"),
    replace(clause("Lisbon", "5 days"), cues=()),
)


def of(place: str) -> Example:
    return clause_examples(FAMILY, ExampleConfig(self_cues=0))[place][0]


def test_history_comes_before_and_as_often_as_asked(whole: None) -> None:
    example = made(MEALS, 1)[0]
    rng = random.Random(0)

    def drawn(probability: float) -> Example:
        return augmented(example, [TWO_TURNS], replace(BARE, history_probability=probability), rng)

    assert drawn(0.0) == example
    assert drawn(1.0) == replace(example, messages=plain_messages(TWO_TURNS.messages) + example.messages)
    assert 150 < sum(drawn(0.2) != example for _ in range(1000)) < 250
    said = [talk_before([TWO_TURNS], replace(BARE, history_probability=0.2), rng) for _ in range(1000)]
    assert 150 < sum(map(bool, said)) < 250
    assert {talk for talk in said if talk} == {plain_messages(TWO_TURNS.messages)}


def test_words_left_out_never_tell_clauses_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word with a capital or a digit stays; so does the rest of the example, and the order of the words."""
    example = clause_examples([ALL.memories[0]], ExampleConfig())[ALL.memories[0].id][0]
    question = example.messages[-1].content
    monkeypatch.setattr("tasks.examples.WORD_DROPOUT", 0.5)
    rng = random.Random(0)
    seen = [augmented(example, [TWO_TURNS], BARE, rng) for _ in range(300)]
    shorter = [drawn.messages[-1].content for drawn in seen if drawn != example]
    assert 90 < len(shorter) < 210  # every other question
    for text in shorter:
        words = iter(question.split())
        assert all(word in words for word in text.split())
        assert [w for w in text.split() if re.search(r"[A-Z0-9]", w)] == re.findall(r"\S*[A-Z0-9]\S*", question)
    assert all(replace(drawn, messages=example.messages) == example for drawn in seen)
    only = replace(example, messages=(Message("user", "why"),))
    monkeypatch.setattr("tasks.examples.WORD_DROPOUT", 1.0)
    assert all(augmented(only, [TWO_TURNS], BARE, rng) == only for _ in range(20))  # never empty


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"self_cues": -1}, "self_cues=-1 is below 0"),
        ({"sft_only": -0.5}, "sft_only=-0.5 is below 0"),
        ({"reading": -1.0}, "reading=-1.0 is below 0"),
        ({"unanswerable": -0.1}, "unanswerable=-0.1 is below 0"),
        ({"history_probability": 1.5}, "history_probability=1.5 is not a share"),
        ({"history_probability": -0.1}, "history_probability=-0.1 is not a share"),
    ],
)
def test_settings_that_mean_nothing_are_named(values: dict[str, float], said: str) -> None:
    with pytest.raises(TaskError, match=rf"examples\.{said}"):
        ExampleConfig(**values)  # type: ignore[arg-type]


def test_rivals_are_what_siblings_say_of_the_same_fact() -> None:
    assert of("Cork").rivals == ("4 days",)  # Gdansk says the same, Porto another fact, Lisbon has no cue
    assert of("Porto").rivals == ()
    assert [lead[0].content for lead in of("Cork").leads] == [
        "How many days in Bergen?",
        "How many days in Gdansk?",
    ]


def test_every_example_of_a_clause_comes_before_any_comes_again() -> None:
    examples = {"Cork": [replace(of("Cork"), answer=str(n)) for n in range(3)], "Porto": [of("Porto")]}
    decks: dict[str, list[Example]] = {}
    rng = random.Random(0)
    rounds = [[in_turn(examples, "Cork", decks, rng).answer for _ in range(3)] for _ in range(20)]
    assert all(sorted(answers) == ["0", "1", "2"] for answers in rounds)
    assert len({tuple(answers) for answers in rounds}) > 1
    assert in_turn(examples, "Porto", decks, rng) == of("Porto")


def test_a_later_turn_asks_again_answers_a_claim_or_follows_on(whole: None) -> None:
    """All three come, the example stays what it is; asked again, its own exchange is where the talk began."""
    example, rng = of("Cork"), random.Random(0)
    drawn = [later_turn(example, [TWO_TURNS], BARE, rng) for _ in range(300)]
    assert all(replace(d, messages=example.messages, later=False) == example and d.later for d in drawn)
    own = (*example.messages, Message("assistant", example.answer))
    again = [d for d in drawn if d.messages[:2] == own]
    assert {d.messages[2:-1] for d in again} == {(), plain_messages(TWO_TURNS.messages)}
    asked = {form.format(question="How many days in Cork?") for form in AGAIN["en"]}
    assert {d.messages[-1].content for d in again} == asked
    claims = [d for d in drawn if len(d.messages) == 1]  # of what a sibling says, which changes no answer
    claimed = {claim.format(rival="4 days", question="How many days in Cork?") for claim in CLAIMS["en"]}
    assert {d.messages[0].content for d in claims} == claimed
    follows = [d for d in drawn if d.messages[:-1] in example.leads]
    assert {d.messages[:-1] for d in follows} == set(example.leads)
    short = {form.format(variant="the Cork site") for form in FOLLOW_UPS["en"]}
    assert {d.messages[-1].content for d in follows} == short
    assert len(again) + len(claims) + len(follows) == 300
    assert min(map(len, (again, claims, follows))) > 60


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_later_turns_is_kept(share: float) -> None:
    example, rng = of("Cork"), random.Random(0)
    drawn = [put(example, [TWO_TURNS], replace(BARE, later_turns=share), rng) for _ in range(400)]
    assert sum(d.later for d in drawn) / len(drawn) == pytest.approx(share, abs=0.06)
    assert {d.source for d in drawn if d.later} <= {"later turns on clauses"}
    assert {d.source for d in drawn if not d.later} <= {"first questions on clauses"}


def test_talk_stands_before_a_claim_and_a_follow_up_and_not_where_it_is_asked_again(whole: None) -> None:
    example, rng = of("Cork"), random.Random(0)
    talk = plain_messages(TWO_TURNS.messages)
    config = replace(BARE, history_probability=1.0)
    for drawn in (later_turn(example, [TWO_TURNS], config, rng) for _ in range(100)):
        again = drawn.messages[: len(example.messages)] == example.messages
        assert again or drawn.messages[: len(talk)] == talk


def test_what_has_no_answer_cannot_come_again(whole: None) -> None:
    """A self-made question has neither answer nor rival; a lone clause's cue can only be asked again."""
    by_rule, rng = made(MEALS, 1)[0], random.Random(0)
    assert all(later_turn(by_rule, [TWO_TURNS], BARE, rng) == by_rule for _ in range(20))
    alone = [later_turn(of("Porto"), [TWO_TURNS], BARE, rng) for _ in range(20)]
    assert all(
        d.messages[: len(of("Porto").messages)] == of("Porto").messages and len(d.messages) > 2 for d in alone
    )


def test_chinese_questions_are_put_in_chinese() -> None:
    zh = load_task("regs_zh")
    rng = random.Random(0)
    examples = [e for found in clause_examples(zh.memories, ExampleConfig()).values() for e in found if e.leads]
    assert len(examples) > 50
    for example in examples:
        for form in (augmented, later_turn, later_turn, later_turn):
            said = form(example, [TWO_TURNS], BARE, rng).messages[-1].content
            assert not re.search(r"[a-z]{4}", said), said


@pytest.mark.parametrize("name", ["regs", "manual", "regs_zh"])
def test_no_turn_of_a_held_out_dialogue_is_trained_on(name: str) -> None:
    task = load_task(name)
    rng = random.Random(0)
    trained = set()
    for found in clause_examples(task.memories, ExampleConfig()).values():
        for example in found:
            for form in (augmented, later_turn) * 12:
                trained.add(form(example, general(task.sft), BARE, rng).messages[-1].content)
    asked = {qa.question for qa in task.questions} | set(task.follow_ups.values())
    assert not trained & asked
    assert not set(CLAIMS["en"] + CLAIMS["zh"]) & set(CONTRADICTIONS["en"] + CONTRADICTIONS["zh"])
    assert not set(AGAIN["en"] + AGAIN["zh"]) & set(RE_ASKS["en"] + RE_ASKS["zh"])


def test_a_clause_without_a_name_in_its_family_is_not_asked_for_in_half_sentences() -> None:
    nameless = [replace(m, variant="") for m in FAMILY]
    found = clause_examples(nameless, ExampleConfig())["Cork"][0]
    assert found.leads == ()
    assert found.rivals == ("4 days",)
    assert made(MEALS, 1)[0].rivals == ()


def test_split_think() -> None:
    assert split_think("<think>\nA\n</think>\nB") == ("A", "B")
    assert split_think("  B ") == ("", "B")
    assert split_think("<think> never closed") == ("", "<think> never closed")
