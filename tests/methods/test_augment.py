"""How training questions are put: other talk, wrong claims, half sentences, and never a dialogue's wording."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from methods.augment import AGAIN, CLAIMS, FOLLOW_UPS, answered, augmented, later_turn, talk_before
from test_examples import TWO_TURNS

from methods.base import MethodError
from methods.examples import Example, ExampleConfig, clause_examples, general, plain_messages, self_made_cues
from tasks.base import QA, Memory, Message
from tasks.dialogues import CONTRADICTIONS, RE_ASKS
from tasks.registry import load_task

ALL = load_task("regs")
BARE = ExampleConfig(history_probability=0.0, word_dropout=0.0, claim_probability=0.0, follow_up_probability=0.0)
LISBON = Memory("1", "Staff get 31 euros per day.", "Meals, Lisbon")


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
    return clause_examples(FAMILY, ExampleConfig(self_cues=0, self_cues_beside=0))[place][0]


def test_history_comes_before_and_as_often_as_asked() -> None:
    example = self_made_cues(LISBON, 1)[0]
    rng = random.Random(0)

    def drawn(probability: float) -> Example:
        return augmented(
            example, [TWO_TURNS], replace(BARE, history_probability=probability, history_conversations=1), rng
        )

    assert drawn(0.0) == example
    assert drawn(1.0) == replace(example, messages=plain_messages(TWO_TURNS) + example.messages)
    assert 150 < sum(drawn(0.2) != example for _ in range(1000)) < 250


def test_words_left_out_never_tell_clauses_apart() -> None:
    """A word with a capital or a digit stays; so does the rest of the example, and the order of the words."""
    example = clause_examples([ALL.memories[0]], ExampleConfig())[ALL.memories[0].id][0]
    question = example.messages[-1].content
    config = replace(BARE, word_dropout=0.5)
    rng = random.Random(0)
    seen = [augmented(example, [TWO_TURNS], config, rng) for _ in range(300)]
    shorter = [drawn.messages[-1].content for drawn in seen if drawn != example]
    assert 90 < len(shorter) < 210  # every other question
    for text in shorter:
        words = iter(question.split())
        assert all(word in words for word in text.split())
        assert [w for w in text.split() if re.search(r"[A-Z0-9]", w)] == re.findall(r"\S*[A-Z0-9]\S*", question)
    assert all(replace(drawn, messages=example.messages) == example for drawn in seen)
    only = replace(example, messages=(Message("user", "why"),))
    everything = replace(BARE, word_dropout=1.0)
    assert all(augmented(only, [TWO_TURNS], everything, rng) == only for _ in range(20))  # never empty


def test_talk_before_is_of_up_to_so_many_conversations() -> None:
    config = replace(BARE, history_probability=1.0, history_conversations=3)
    rng = random.Random(0)
    lengths = {len(augmented(of("Cork"), [TWO_TURNS], config, rng).messages) for _ in range(100)}
    assert lengths == {5, 9, 13}


def test_talk_before_holds_as_many_answered_questions_as_asked() -> None:
    """A question on a clause with its answer in a conversation's place, the same before every kind of question."""
    exchanges = answered({"Lisbon": self_made_cues(LISBON, 1), "Cork": [of("Cork")], "Porto": [of("Porto")]})
    assert exchanges == [of("Cork"), of("Porto")]  # a self-made question has no answer
    asked = {(*e.messages, Message("assistant", e.answer)) for e in exchanges}
    rng = random.Random(0)

    def drawn(share: float, found: list[Example]) -> list[tuple[Message, ...]]:
        config = replace(BARE, history_probability=1.0, history_asked=share)
        return [talk_before([TWO_TURNS], config, rng, found) for _ in range(400)]

    assert set(drawn(1.0, exchanges)) == asked
    assert set(drawn(0.0, exchanges)) == set(drawn(1.0, [])) == {plain_messages(TWO_TURNS)}
    assert 160 < sum(talk in asked for talk in drawn(0.5, exchanges)) < 240
    config = replace(BARE, history_probability=1.0, history_asked=1.0)
    put = augmented(of("Cork"), [TWO_TURNS], config, rng, exchanges)
    assert put.messages[:-1] in asked
    assert replace(put, messages=put.messages[-1:]) == of("Cork")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"self_cues": -1}, "examples.self_cues=-1 is below 0"),
        ({"history_conversations": 0}, "examples.history_conversations=0 is no talk"),
        ({"dialogue_turns": 0}, "examples.dialogue_turns=0 holds no sample"),
        ({"history_asked": 1.5}, "examples.history_asked=1.5 is not a share"),
        ({"word_dropout": -0.1}, "examples.word_dropout=-0.1 is not a share"),
    ],
)
def test_settings_that_mean_nothing_are_named(values: dict[str, float], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        ExampleConfig(**values)  # type: ignore[arg-type]


def test_rivals_are_what_siblings_say_of_the_same_fact() -> None:
    assert of("Cork").rivals == ("4 days",)  # Gdansk says the same, Porto another fact, Lisbon has no cue
    assert of("Porto").rivals == ()
    assert [lead[0].content for lead in of("Cork").leads] == [
        "How many days in Bergen?",
        "How many days in Gdansk?",
    ]


def test_a_claim_is_a_rival_value_and_changes_no_answer() -> None:
    example, rng = of("Cork"), random.Random(0)
    config = replace(BARE, claim_probability=1.0)
    drawn = [augmented(example, [TWO_TURNS], config, rng) for _ in range(60)]
    said = {d.messages[-1].content for d in drawn}
    assert said == {c.format(rival="4 days", question="How many days in Cork?") for c in CLAIMS["en"]}
    assert all(replace(d, messages=example.messages) == example for d in drawn)
    assert augmented(of("Porto"), [TWO_TURNS], config, rng) == of("Porto")  # nobody claims what no clause says


def test_a_follow_up_stands_behind_a_siblings_exchange() -> None:
    example, rng = of("Cork"), random.Random(0)
    config = replace(BARE, follow_up_probability=1.0, word_dropout=0.5, claim_probability=1.0)
    drawn = [augmented(example, [TWO_TURNS], config, rng) for _ in range(60)]
    assert {d.messages[:-1] for d in drawn} == set(example.leads)
    assert {d.messages[-1].content for d in drawn} == {f.format(variant="the Cork site") for f in FOLLOW_UPS["en"]}
    assert all(replace(d, messages=example.messages) == example for d in drawn)


def test_a_later_turn_asks_again_answers_a_claim_or_follows_on() -> None:
    """All three come, the example stays what it is; asked again, its own exchange is where the talk began."""
    example, rng = of("Cork"), random.Random(0)
    drawn = [later_turn(example, [TWO_TURNS], BARE, rng) for _ in range(300)]
    assert all(replace(d, messages=example.messages) == example for d in drawn)
    own = (*example.messages, Message("assistant", example.answer))
    again = [d for d in drawn if d.messages[:2] == own]
    assert {d.messages[2:-1] for d in again} == {(), plain_messages(TWO_TURNS)}
    asked = {form.format(question="How many days in Cork?") for form in AGAIN["en"]}
    assert {d.messages[-1].content for d in again} == asked
    claims = [d for d in drawn if len(d.messages) == 1]
    assert all("4 days" in d.messages[0].content for d in claims)
    follows = [d for d in drawn if d.messages[:-1] in example.leads]
    assert all("the Cork site" in d.messages[-1].content for d in follows)
    assert len(again) + len(claims) + len(follows) == 300
    assert min(map(len, (again, claims, follows))) > 60


def test_what_has_no_answer_cannot_come_again() -> None:
    """A self-made question has neither answer nor rival; a lone clause's cue can only be asked again."""
    made, rng = self_made_cues(LISBON, 1)[0], random.Random(0)
    assert all(later_turn(made, [TWO_TURNS], BARE, rng) == made for _ in range(20))
    alone = [later_turn(of("Porto"), [TWO_TURNS], BARE, rng) for _ in range(20)]
    assert all(
        d.messages[: len(of("Porto").messages)] == of("Porto").messages and len(d.messages) > 2 for d in alone
    )


def test_chinese_questions_are_put_in_chinese() -> None:
    zh = load_task("regs_zh")
    rng, config = random.Random(0), replace(BARE, claim_probability=1.0, follow_up_probability=0.5)
    examples = [e for found in clause_examples(zh.memories, ExampleConfig()).values() for e in found if e.leads]
    assert len(examples) > 50
    for example in examples:
        for put in (augmented, later_turn):
            said = put(example, [TWO_TURNS], config, rng).messages[-1].content
            assert not re.search(r"[a-z]{4}", said), said


@pytest.mark.parametrize("name", ["regs", "manual", "regs_zh"])
def test_no_turn_of_a_held_out_dialogue_is_trained_on(name: str) -> None:
    task = load_task(name)
    config = replace(BARE, claim_probability=1.0, follow_up_probability=0.5)
    rng = random.Random(0)
    trained = set()
    for found in clause_examples(task.memories, ExampleConfig()).values():
        for example in found:
            for _ in range(12):
                for put in (augmented, later_turn):
                    trained.add(put(example, general(task.sft), config, rng).messages[-1].content)
    asked = {qa.question for qa in task.questions} | set(task.follow_ups.values())
    assert not trained & asked
    assert not set(CLAIMS["en"] + CLAIMS["zh"]) & set(CONTRADICTIONS["en"] + CONTRADICTIONS["zh"])
    assert not set(AGAIN["en"] + AGAIN["zh"]) & set(RE_ASKS["en"] + RE_ASKS["zh"])


def test_a_clause_without_a_name_in_its_family_is_not_asked_for_in_half_sentences() -> None:
    nameless = [replace(m, variant="") for m in FAMILY]
    found = clause_examples(nameless, ExampleConfig())["Cork"][0]
    assert found.leads == ()
    assert found.rivals == ("4 days",)
    assert self_made_cues(LISBON, 1)[0].rivals == ()
