"""Scripted dialogues: what is asked, when, and that keys, distances and fillers are what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import QA, Dialogue, Split, TaskData, TaskError, Turn
from tasks.dialogues import DialogueOptions, build_dialogues, check_dialogues
from tasks.handbook import read_handbook, stands_in
from tasks.regs import load
from tasks.slicing import slice_task
from tasks.think_sft import FILLER_TOPICS, final_answer

REGS = load()
Files = dict[str, list[dict[str, Any]]]
Write = Callable[[Files], Path]
LATER = ("re_ask", "follow_up", "near_miss", "contradiction")


def clause_dialogues(dialogues: tuple[Dialogue, ...]) -> list[Dialogue]:
    return [d for d in dialogues if d.id.startswith("clause/")]


def generated(dialogue: Dialogue) -> list[Turn]:
    return [turn for turn in dialogue.turns if turn.kind != "filler"]


def about_clauses(dialogue: Dialogue) -> list[Turn]:
    return [turn for turn in dialogue.turns if turn.qa is not None and turn.qa.memory_ids]


def key(turn: Turn) -> QA:
    assert turn.qa is not None
    return turn.qa


@settings(max_examples=25, deadline=None)
@given(num_clauses=st.integers(1, 30), seed=st.integers(0, 50), split=st.sampled_from(["dev", "test"]))
def test_every_dialogue_is_well_built(num_clauses: int, seed: int, split: Split) -> None:
    task = slice_task(REGS, num_clauses, seed)
    dialogues = build_dialogues(task, seed, split)
    assert dialogues == build_dialogues(task, seed, split)
    assert len({d.id for d in dialogues}) == len(dialogues)
    asked = {qa.id: qa for qa in task.questions}
    texts = {m.id: m.text for m in task.memories}
    heldout = {c.messages[0].content: c for c in task.sft_heldout}

    for dialogue in dialogues:
        users = [turn.user for turn in dialogue.turns if turn.kind == "filler"]
        assert len(users) == len(set(users))
        for turn in dialogue.turns:
            if turn.kind == "filler":
                assert turn.topic in FILLER_TOPICS
                assert turn.reply == final_answer(heldout[turn.user].messages[1].content)
            elif turn.kind != "ordinary":
                assert key(turn).split == split
                assert turn.reply is None

    for dialogue in clause_dialogues(dialogues):
        turns = generated(dialogue)
        first = dialogue.turns.index(turns[0])
        assert turns[0].kind == "first_ask"
        assert turns[0].distance == first
        assert dialogue.memory_id == key(turns[0]).memory_ids[0]
        assert turns[0].user == asked[key(turns[0]).id].question
        assert 1 <= len(turns) <= 3
        for turn in about_clauses(dialogue):
            (memory_id,) = key(turn).memory_ids
            assert stands_in(key(turn).answer, texts[memory_id])
            assert not any(stands_in(rival, texts[memory_id]) for rival in key(turn).rivals)


def test_each_held_out_question_is_asked_at_two_distances() -> None:
    dialogues = clause_dialogues(build_dialogues(REGS, seed=0))
    asked: dict[str, list[int]] = {}
    for dialogue in dialogues:
        first = generated(dialogue)[0]
        asked.setdefault(key(first).id, []).append(first.distance or 0)
    assert list(asked) == [qa.id for qa in REGS.held_out("test")]
    assert all(min(pair) == 0 < max(pair) and len(pair) == 2 for pair in asked.values())
    one_each = build_dialogues(REGS, 0, options=DialogueOptions(questions_per_clause=1))
    assert len(clause_dialogues(one_each)) == 2 * len(REGS.memories)


@pytest.mark.parametrize("num_clauses", [18, None])
def test_distances_and_kinds_are_balanced_over_cued_and_uncued(num_clauses: int | None) -> None:
    task = slice_task(REGS, num_clauses, 0)
    dialogues = clause_dialogues(build_dialogues(task, seed=0))
    for cued in (True, False):
        side = [d for d in dialogues if task.memory(d.memory_id).cued == cued]
        facts = {key(generated(d)[0]).id for d in side}
        delays = Counter(generated(d)[0].distance for d in side)
        assert set(delays) == {0, 1, 2, 4, 8}
        assert delays.pop(0) == len(facts)
        assert max(delays.values()) - min(delays.values()) <= 1
        long = [d for d in side if len(about_clauses(d)) > 1]
        assert len(long) == len(facts)  # one of the two dialogues goes on
        assert abs(2 * sum(generated(d)[0].distance == 0 for d in long) - len(long)) <= 2
        assert 2.2 <= sum(len(generated(d)) for d in long) / len(long) <= 2.8
        later = [turn for d in long for turn in generated(d)[1:]]
        kinds = Counter(turn.kind for turn in later)
        assert set(kinds) == set(LATER)
        assert max(kinds.values()) - min(kinds.values()) <= 2
        distances = Counter(turn.distance for turn in later if turn.kind == "re_ask")
        counts = [distances[d] for d in (0, 1, 2, 4, 8)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == distances.total()


def test_later_turns_ask_what_their_kind_says() -> None:
    asked = {qa.id: qa for qa in REGS.questions}
    family = {m.id: m.family for m in REGS.memories}
    seen = Counter[str]()
    for dialogue in clause_dialogues(build_dialogues(REGS, seed=1)):
        turns = list(dialogue.turns)
        first = generated(dialogue)[0]
        qa, memory_id = key(first), dialogue.memory_id
        last_ask = turns.index(first)  # of this clause's fact
        for n, turn in enumerate(turns[last_ask + 1 :], start=last_ask + 1):
            if turn.kind in ("filler", "unanswerable", "ordinary"):
                continue
            seen[turn.kind] += 1
            other = key(turn)
            assert turn.distance == n - last_ask - 1
            if turn.kind in ("re_ask", "contradiction"):
                last_ask = n
                assert other.memory_ids == qa.memory_ids
                assert (other.answer, other.slot) == (qa.answer, qa.slot)
            else:
                (sibling,) = other.memory_ids
                assert sibling != memory_id
                assert family[sibling] == family[memory_id]
            if turn.kind == "re_ask":
                assert turn.user != first.user
                assert first.user in turn.user or turn.user == asked[other.id].question != first.user
                # Only fillers stand between the first ask and the re-ask.
                assert all(t.kind == "filler" for t in turns[turns.index(first) + 1 : n])
            elif turn.kind == "contradiction":
                assert first.user in turn.user
                assert any(stands_in(rival, turn.user) for rival in other.rivals)
                assert not stands_in(other.answer, turn.user)
            elif turn.kind == "follow_up":
                assert turn.distance == 0  # elliptic: it must follow an ask of the same slot
                assert other.slot == qa.slot
                assert turn.user == REGS.follow_ups[f"{sibling}/{qa.slot}"]
                facts = REGS.facts[f"{sibling}/{qa.slot}"]
                assert (other.answer, *other.aliases)[: len(facts)] == facts
                assert qa.answer in other.rivals
            elif turn.kind == "near_miss":
                assert turn.user == asked[other.id].question
                assert asked[other.id] == other
    assert set(seen) == set(LATER)


def test_a_re_ask_takes_the_other_question_on_the_same_slot(files: Files, write: Write) -> None:
    """Where the clause has one; else the same question in a wrapping."""
    files["clauses.jsonl"][0]["questions"][2] |= {"slot": "amount", "question": "Lisbon, lunch: which sum?"}
    task = read_handbook(write(files), num_train=9, num_heldout=180)
    other = {"2.04a/test1": "2.04a/test2", "2.04a/test2": "2.04a/test1"}
    questions = {qa.id: qa.question for qa in task.questions}
    seen = set()
    for seed in range(10):
        for dialogue in clause_dialogues(build_dialogues(task, seed)):
            qa = key(generated(dialogue)[0])
            for turn in generated(dialogue)[1:]:
                if turn.kind == "re_ask" and qa.id in other:
                    assert (key(turn).id, turn.user) == (other[qa.id], questions[other[qa.id]])
                elif turn.kind == "re_ask":
                    assert key(turn) == qa
                    assert turn.user.endswith(qa.question) and turn.user != qa.question
                else:
                    continue
                seen.add(qa.id in other)
    assert seen == {True, False}


def test_two_clause_questions_rest_on_clauses_that_are_there() -> None:
    task = slice_task(REGS, 60, 0)
    dialogues = [d for d in build_dialogues(task, seed=0) if d.turns[-1].kind == "two_clause"]
    kept = {m.id for m in task.memories}
    assert 1 <= len(dialogues) <= 8
    for dialogue in dialogues:
        assert kept.issuperset(key(dialogue.turns[0]).memory_ids)
        assert dialogue.memory_id in kept


@pytest.mark.parametrize("kind", ["unanswerable", "ordinary"])
@pytest.mark.parametrize("num_clauses", [18, 3])
def test_what_no_clause_answers_is_asked_first_and_behind_a_clause(kind: str, num_clauses: int) -> None:
    task = slice_task(REGS, num_clauses, 0)
    dialogues = [d for d in build_dialogues(task, seed=0) if d.turns[-1].kind == kind]
    turns = [d.turns[-1] for d in dialogues]
    assert len(turns) == len({turn.user for turn in turns}) == 20  # all of them, wherever there is room
    behind = [d for d in dialogues if d.memory_id]
    assert len(behind) == (10 if num_clauses == 18 else num_clauses)
    for dialogue in behind:
        assert [turn.kind for turn in generated(dialogue)] == ["first_ask", kind]
        assert dialogue.turns[-1].distance == len(dialogue.turns) - 1
    alone = [d for d in dialogues if not d.memory_id]
    assert {tuple(turn.kind for turn in d.turns) for d in alone} == {(kind,), ("filler", kind)}
    heldout = {c.messages[0].content: c for c in task.sft_heldout}
    for turn in turns if kind == "ordinary" else ():
        assert turn.reply == heldout[turn.user].messages[1].content
        assert turn.topic == heldout[turn.user].topic
        assert turn.qa is None
    if kind == "ordinary":
        assert len({turn.topic for turn in turns}) == len({c.topic for c in task.sft_heldout})
    else:
        assert all(key(turn).memory_ids == () for turn in turns)


def test_seeds_change_the_script_and_not_what_is_asked() -> None:
    one, two = build_dialogues(REGS, seed=0), build_dialogues(REGS, seed=1)
    assert one != two
    first_asks = [{generated(d)[0].user for d in clause_dialogues(ds)} for ds in (one, two)]
    assert first_asks[0] == first_asks[1]


def test_the_options_are_kept() -> None:
    options = DialogueOptions(distances=(3,), max_unanswerable=0, max_two_clause=0, num_ordinary=0)
    dialogues = build_dialogues(REGS, seed=0, options=options)
    assert clause_dialogues(dialogues) == list(dialogues)
    assert {generated(d)[0].distance for d in dialogues} == {3}
    with pytest.raises(TaskError, match="200 filler turns and only"):
        build_dialogues(REGS, seed=0, options=DialogueOptions(distances=(100,)))


def test_a_clause_without_siblings_is_only_re_asked(files: Files, write: Write) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=180)
    for seed in range(20):
        kinds = [[t.kind for t in about_clauses(d)] for d in build_dialogues(task, seed) if d.memory_id == "3.01"]
        assert sorted(kinds) == [["first_ask"], ["first_ask", "re_ask"]]


def _without(task: TaskData, memory_id: str) -> TaskData:
    return replace(task, memories=tuple(m for m in task.memories if m.id != memory_id))


def test_a_missing_clause_is_refused() -> None:
    gone = REGS.memories[0].id
    with pytest.raises(TaskError, match=rf"'{gone}/test1' refers to the clause '{gone}'"):
        build_dialogues(_without(REGS, gone), seed=0)
    dialogues = build_dialogues(REGS, seed=0)
    check_dialogues(REGS, dialogues)
    with pytest.raises(TaskError, match=rf"refers to the clause '{gone}'"):
        check_dialogues(_without(REGS, gone), dialogues)
