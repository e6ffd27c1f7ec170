"""What every registered task promises, whatever its source: one test for all of them.

A task that needs a folder, a size or files of its own to load offline says so in task_options.py.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from task_options import Options, options_for

from tasks.base import TaskData, TaskError
from tasks.dialogues import DialogueOptions, build_dialogues
from tasks.registry import TASKS, load_task
from tasks.validate import odd_characters, problems

LOADED: dict[str, TaskData] = {}
OPTIONS: dict[str, Options] = {}


@pytest.fixture(params=sorted(TASKS))
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    chosen = str(request.param)
    if chosen not in LOADED:
        OPTIONS[chosen] = options_for(chosen, tmp_path_factory.mktemp("task"))
        LOADED[chosen] = load_task(chosen, **OPTIONS[chosen])
    return chosen


@pytest.fixture
def task(name: str) -> TaskData:
    return LOADED[name]


def test_it_is_sound(task: TaskData) -> None:
    assert problems(task) == []


def test_it_says_what_it_is(name: str, task: TaskData) -> None:
    assert task.name == name
    for value in (task.licence, task.source, task.description, task.version):
        assert value.strip()


def test_it_has_what_a_comparison_needs(task: TaskData) -> None:
    assert task.memories
    assert any(True for _ in task.held_out("dev"))
    assert any(True for _ in task.held_out("test"))
    assert any(c.kind == "general" for c in task.sft)
    assert task.sft_heldout


def test_training_and_held_out_questions_are_marked(task: TaskData) -> None:
    for memory in task.memories:
        for cue in memory.cues:
            assert (cue.split, cue.kind, cue.memory_ids) == ("train", "single", (memory.id,)), cue.id
    for qa in task.questions:
        assert qa.split in ("dev", "test"), qa.id
        wanted = {"single": 1, "unanswerable": 0, "two_clause": 2}[qa.kind]
        assert len(set(qa.memory_ids)) == wanted, qa.id
        assert bool(qa.answer) == (qa.kind != "unanswerable"), qa.id
        assert bool(qa.slot) or qa.kind != "single", qa.id


def test_every_text_is_clean(task: TaskData) -> None:
    """No text is empty, ends in blanks, or holds control characters or the mark of a failed decoding."""
    texts = {f"clause {m.id}": m.text for m in task.memories}
    texts |= {f"title of {m.id}": m.title for m in task.memories if m.title}
    texts |= {f"question {qa.id}": qa.question for qa in task.questions}
    texts |= {f"cue {qa.id}": qa.question for m in task.memories for qa in m.cues}
    for place, text in texts.items():
        assert text and text == text.strip(), place
        assert unicodedata.is_normalized("NFC", text), place
        assert not odd_characters(text), place


def test_what_refers_to_a_clause_finds_it(task: TaskData) -> None:
    ids = {m.id for m in task.memories}
    assert not any(memory_id.startswith("\0") for memory_id in ids)
    assert {key.rpartition("/")[0] for key in task.facts} <= ids
    assert set(task.follow_ups) <= set(task.facts)
    for qa in task.held_out("test"):
        assert task.facts[f"{qa.memory_ids[0]}/{qa.slot}"][0] == qa.answer, qa.id


def test_it_loads_the_same_twice(name: str, task: TaskData) -> None:
    again = load_task(name, **OPTIONS[name])
    assert again.version == task.version
    assert again == task


def test_a_slice_is_sound_and_follows_the_seed(name: str, task: TaskData) -> None:
    wanted = min(6, len(task.memories))
    part = load_task(name, num_clauses=wanted, seed=1, **OPTIONS[name])
    assert wanted <= len(part.memories) <= len(task.memories)
    assert problems(part) == []
    assert any(True for _ in part.held_out("test"))
    assert part == load_task(name, num_clauses=wanted, seed=1, **OPTIONS[name])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_dialogues_can_be_scripted(task: TaskData, split: str) -> None:
    """Each clause with a question is asked for, after every distance in turn."""
    options = DialogueOptions(questions_per_clause=1)
    dialogues = build_dialogues(task, 0, split, options)  # type: ignore[arg-type]
    asked = [t for d in dialogues for t in d.turns if t.kind == "first_ask"]
    clauses = {memory_id for qa in task.held_out(split) for memory_id in qa.memory_ids}  # type: ignore[arg-type]
    assert {t.qa.memory_ids[0] for t in asked if t.qa} == clauses
    if len(asked) >= 4 * len(options.distances):  # cued and uncued clauses run through them apart
        assert {t.distance for t in asked} == set(options.distances)
    assert dialogues == build_dialogues(task, 0, split, options)  # type: ignore[arg-type]


def test_an_unknown_option_is_one_sentence(name: str) -> None:
    with pytest.raises(TaskError, match="nonsense"):
        load_task(name, **OPTIONS[name], nonsense=1)


def test_the_checks_would_notice(task: TaskData) -> None:
    """A key that its clause does not give is found in any task."""
    (first, *_) = task.held_out("test")
    spoilt = replace(first, answer="Zanzibar 4711", aliases=())
    questions = tuple(spoilt if qa.id == first.id else qa for qa in task.questions)
    assert any(first.id in problem for problem in problems(replace(task, questions=questions)))
