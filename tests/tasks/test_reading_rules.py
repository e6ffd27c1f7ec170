"""The rules that models learn to read on: sound, many, asked in many ways, and none of a task's own."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.reading_rules import ASKERS, FIRST_NAMES, Rule, ask, draw_passage, reasoning, rules
from tasks.think_sft import draw_problems, final_answer, general_conversations, reading_conversations

DATA = Path(__file__).parents[2] / "tasks" / "data"
RUN = 8  # words in a row that no rule shares with a task


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[n : n + RUN]) for n in range(len(found) - RUN + 1)}


def strings(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    elif isinstance(body, dict):
        yield from (text for value in body.values() for text in strings(value))
    elif isinstance(body, list):
        yield from (text for value in body for text in strings(value))


def of_tasks() -> list[str]:
    files = [file for file in DATA.glob("*/*.jsonl") if file.parent.name not in ("general", "regs_zh")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [text for line in lines for text in strings(json.loads(line))]


def said(rule: Rule) -> list[str]:
    return [rule.text, *rule.variants, *(text for fact in rule.facts for text in (fact.asks, *fact.questions))]


def test_there_are_many_and_most_have_like_facts_to_tell_apart() -> None:
    facts = [fact for rule in rules() for fact in rule.facts]
    assert len(rules()) >= 1000
    assert len({rule.name for rule in rules()}) == len(rules())
    assert sum(bool(rule.variants) for rule in rules()) >= 200
    assert len({question for fact in facts for question in fact.questions}) >= 20_000
    assert sum(len({fact.kind for fact in rule.facts}) < len(rule.facts) for rule in rules()) >= len(rules()) / 2
    assert sum(rule.held_out for rule in rules()) in range(len(rules()) // 15, len(rules()) // 7)


def test_every_slot_of_a_text_is_a_fact_with_questions_of_its_own() -> None:
    asked: set[str] = set()
    for rule in rules():
        slots = [fact.slot for fact in rule.facts] + ["at"] * bool(rule.variants)
        assert sorted(re.findall(r"{(\w+)}", rule.text)) == sorted(slots), rule.text
        assert len(rule.facts) >= 2
        for fact in rule.facts:
            assert len(fact.questions) >= 4, fact
            for question in fact.questions:
                assert question.lower() not in asked, question
                asked.add(question.lower())
                assert set(re.findall(r"{(\w+)}", question)) <= {"who", *["at"] * bool(rule.variants)}, question


@pytest.mark.parametrize("seed", [0, 1])
def test_a_passage_answers_each_question_once_and_no_question_gives_its_answer_away(seed: int) -> None:
    rng = random.Random(seed)
    for rule in rules():
        passage = draw_passage(rng, rule)
        assert "{" not in passage.text
        for fact in rule.facts:
            shown, answer = passage.shown[fact.slot], passage.answers[fact.slot]
            question = ask(rng, passage, fact, named=True)
            assert passage.text.count(shown) == 1
            assert answer in ("yes", "no") or not re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", question), (
                question
            )
            assert reasoning(passage, fact).endswith(f"so the answer is {answer}.")
            assert passage.variant in question or passage.variant == "" or "{at}" in "".join(fact.questions)


def test_near_misses_are_of_other_variants() -> None:
    rng = random.Random(0)
    for rule in (rule for rule in rules() if len(rule.variants) > 1):
        first = draw_passage(rng, rule)
        second = draw_passage(rng, rule, [first])
        assert first.variant != second.variant


def test_questions_use_other_words_than_the_rule() -> None:
    """Of a question's longer words at most half stand in its rule, for nine questions in ten."""
    over = total = 0
    for rule in rules():
        known = set(words(rule.text))
        for question in (question for fact in rule.facts for question in fact.questions):
            longer = [word for word in words(question.replace("{who}", "")) if len(word) > 4]
            over += sum(word in known for word in longer) > max(1, len(longer) / 2)
            total += 1
    assert over <= total / 10


def test_no_rule_holds_what_a_task_asks_about() -> None:
    tasks = of_tasks()
    taken = {run for text in tasks for run in runs(text)}
    names = {name for text in tasks for name in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+ [A-Z][a-z]+", text)}
    for rule in rules():
        for text in said(rule):
            assert not runs(text) & taken, text
            assert not names & set(re.findall(r"[A-Z][a-z]+ [A-Z][a-z]+", text)), text


def test_the_search_for_shared_words_can_fail() -> None:
    tasks = of_tasks()
    taken = {run for text in tasks for run in runs(text)}
    copied = " ".join(max(tasks, key=len).upper().split()[3:13])  # a piece of a task in another spelling
    assert runs(f"In short: {copied}, as everybody knows.") & taken
    assert not runs("Nobody has ever written down these eleven words in a row before.") & taken


def test_people_in_rules_are_not_those_who_ask() -> None:
    assert not set(FIRST_NAMES) & set(ASKERS)


def test_what_is_held_out_is_so_in_every_corpus() -> None:
    held = {rule.name for rule in rules() if rule.held_out}
    for seed in (0, 1):
        train, heldout = general_conversations(seed, 400, 80)
        assert not held & {c.passage_kind for c in (*train, *reading_conversations(seed))}
        assert {c.passage_kind for c in heldout if c.passage} <= held
    assert {p.rule for p in draw_problems("reading", 60, 0, heldout=True)} <= held


def test_passages_are_asked_about_every_fact() -> None:
    by_name = {rule.name: rule for rule in rules()}
    found = reading_conversations(0, 600)
    kinds = {c.passage: c.passage_kind for c in found}
    assert len(set(kinds.values())) == len(kinds) == 300
    for passage, kind in kinds.items():
        asked = [c for c in found if c.passage == passage]
        assert len(asked) == len(by_name[kind].facts)
        assert all(c.question in c.messages[0].content and final_answer(c.messages[1].content) for c in asked)
