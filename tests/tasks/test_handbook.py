"""The reader: what stands in the files stands in the task, and what is wrong is named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import NO_CLAUSE_ANSWER, NO_CLAUSE_THINK, TaskData, TaskError
from tasks.handbook import read_handbook, rivals_of, stands_in

Files = dict[str, list[dict[str, Any]]]
Write = Callable[[Files], Path]


def read(folder: Path) -> TaskData:
    return read_handbook(folder, num_train=9, num_heldout=9)


def test_clauses_become_memories_with_cues(files: Files, write: Write) -> None:
    task = read(write(files))
    assert [m.id for m in task.memories] == ["2.04a", "2.04b", "2.04c", "3.01"]
    assert [m.cued for m in task.memories] == [True, False, True, False]
    lisbon = task.memory("2.04a")
    assert (lisbon.title, lisbon.variant) == ("Meal allowance, Lisbon", "Lisbon")
    assert lisbon.family == task.memory("2.04b").family != task.memory("3.01").family
    assert lisbon.cues[0].split == "train"
    assert lisbon.cues[0].think == "It is there."
    assert (task.name, task.licence, task.source) == ("tiny", "CC0", "made up")


def test_question_ids_are_unique_and_tell_clause_and_split(files: Files, write: Write) -> None:
    task = read(write(files))
    ids = [qa.id for qa in task.questions] + [cue.id for m in task.memories for cue in m.cues]
    assert len(ids) == len(set(ids))
    assert {"2.04a/cue1", "2.04a/dev1", "2.04a/test1", "2.04a/test2", "T1", "U2"} <= set(ids)


def test_keys_come_from_the_slot_and_rivals_from_the_siblings(files: Files, write: Write) -> None:
    asked = {qa.id: qa for qa in read(write(files)).questions}
    amount, contact = asked["2.04a/test1"], asked["2.04a/test2"]
    assert (amount.answer, amount.aliases, amount.slot) == ("27 euros", ("EUR 27",), "amount")
    assert amount.rivals == ("31 euros", "EUR 31", "7 euros", "EUR 7")
    assert contact.rivals == ("Marit Oja", "Nora Daly")
    assert asked["3.01/test1"].rivals == ()


def test_facts_and_follow_ups_are_keyed_by_clause_and_slot(files: Files, write: Write) -> None:
    task = read(write(files))
    assert task.facts["2.04b/amount"] == ("31 euros", "EUR 31")
    assert task.follow_ups["2.04b/contact"] == "And who in Tallinn?"
    assert "3.01/time" not in task.follow_ups


def test_train_unanswerables_teach_abstention_and_are_not_asked(files: Files, write: Write) -> None:
    task = read(write(files))
    abstentions = [c for c in task.sft if c.kind == "unanswerable"]
    assert [c.messages[0].content for c in abstentions] == ["When does the choir rehearse?"]
    expected = f"<think>\n{NO_CLAUSE_THINK}\n</think>\n{NO_CLAUSE_ANSWER}"
    assert abstentions[0].messages[1].content == expected
    assert [qa.id for qa in task.questions if qa.kind == "unanswerable"] == ["U2"]
    assert Counter(c.kind for c in task.sft if c.kind != "reading") == {"general": 9, "unanswerable": 1}
    assert len({c.passage for c in task.sft if c.kind == "reading"}) == 9 // 2
    assert len(task.sft_heldout) == 9


def test_a_revision_changes_the_key_and_makes_the_stale_value_a_rival(files: Files, write: Write) -> None:
    task = read(write(files))
    assert task.revisions[0].id == "2.04b"
    assert "45 euros" in task.revisions[0].text
    assert task.revisions[0].cues == ()  # the old cues would teach the stale value
    revised = {qa.id: qa for qa in task.revised_questions}
    assert set(revised) == {"2.04b/dev1/revised", "2.04b/test1/revised"}  # the contact did not change
    qa = revised["2.04b/test1/revised"]
    assert (qa.answer, qa.kind, qa.split) == ("45 euros", "revised", "test")
    assert {"31 euros", "EUR 31", "27 euros", "7 euros"} <= set(qa.rivals)


def test_the_version_changes_with_the_data(files: Files, write: Write) -> None:
    first = read(write(files)).version
    assert first == read(write(files)).version
    assert len(first) == 12
    assert int(first, 16) >= 0
    files["clauses.jsonl"][0]["title"] = "Meal allowance, Lisboa"
    assert read(write(files)).version != first


def test_the_other_files_may_be_absent(files: Files, write: Write) -> None:
    task = read(write({"clauses.jsonl": files["clauses.jsonl"]}))
    assert (task.revisions, task.revised_questions) == ((), ())
    assert {qa.kind for qa in task.questions} == {"single"}


def _set(*path: Any) -> Callable[[Files], None]:
    """Sets files[path[0]][path[1]]... = path[-1]."""

    def edit(files: Files) -> None:
        target: Any = files
        for step in path[:-2]:
            target = target[step]
        target[path[-2]] = path[-1]

    return edit


def _drop(*path: Any) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        target: Any = files
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return edit


C, U, T, R = "clauses.jsonl", "unanswerable.jsonl", "two_clause.jsonl", "revisions.jsonl"


@pytest.mark.parametrize(
    ("edit", "where", "said"),
    [
        (_drop(C, 1, "text"), f"{C}:2", ["'text' is missing", "add it as a string"]),
        (_set(C, 1, "text", 5), f"{C}:2", ["'text' is int 5", "make it a string"]),
        (_set(C, 0, "text", "  "), f"{C}:1", ["'text' is empty"]),
        (_set(C, 0, "slots", []), f"{C}:1", ["'slots' is list", "make it an object"]),
        (_set(C, 0, "slots", {}), f"{C}:1", ["'slots' is empty"]),
        (_drop(C, 2, "slots", "amount", "answer"), f"{C}:3", ["'slots.amount.answer' is missing"]),
        (_set(C, 2, "slots", "amount", "aliases", [3]), f"{C}:3", ["'slots.amount.aliases' holds 3"]),
        (_set(C, 2, "slots", "amount", "alises", []), f"{C}:3", ["'slots.amount.alises'", "'aliases'"]),
        (_set(C, 0, "cues", 0, "slot", "amont"), f"{C}:1", ["'cues.1.slot'", "'amont'", "amount, contact"]),
        (_set(C, 0, "questions", 1, "slot", "x"), f"{C}:1", ["'questions.2.slot'", "unknown slot"]),
        (_set(C, 0, "questions", 1, "split", "tset"), f"{C}:1", ["'questions.2.split'", "dev, test"]),
        (_set(C, 0, "questions", 1, "split", "train"), f"{C}:1", ["'questions.2.split'", "cues"]),
        (_set(C, 0, "questions", 1, "one"), f"{C}:1", ["'questions.2' is str 'one'", "an object"]),
        (_set(C, 0, "follow_ups", "amuont", "And?"), f"{C}:1", ["'follow_ups.amuont'", "'amount'"]),
        (_set(C, 0, "familly", "x"), f"{C}:1", ["'familly' is unknown", "'family'"]),
        (_set(C, 2, "id", "2.04a"), f"{C}:3", ["repeats '2.04a'", f"{C}:1"]),
        (_set(U, 1, "id", "U1"), f"{U}:2", ["repeats 'U1'", f"{U}:1"]),
        (_set(U, 1, "id", "3.01"), f"{U}:2", ["repeats '3.01'", f"{C}:4"]),
        (_set(U, 1, "split", "tests"), f"{U}:2", ["'split'", "'tests'"]),
        (_set(T, 0, "id", "U1"), f"{T}:1", ["repeats 'U1'", f"{U}:1"]),
        (_set(T, 0, "memory_ids", ["2.04a", "9.9"]), f"{T}:1", ["unknown clause '9.9'"]),
        (_set(T, 0, "memory_ids", ["2.04a"]), f"{T}:1", ["'memory_ids'", "two clauses"]),
        (_set(R, 0, "id", "9.9"), f"{R}:1", ["unknown clause '9.9'"]),
        (_drop(R, 0, "slots", "contact"), f"{R}:1", ["'slots'", "['amount', 'contact']"]),
    ],
)
def test_a_wrong_line_is_named(
    files: Files, write: Write, edit: Callable[[Files], None], where: str, said: list[str]
) -> None:
    edit(files)
    with pytest.raises(TaskError) as error:
        read(write(files))
    message = str(error.value)
    assert f"{where}: " in message
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (C, b'{"id": "1"\n', ["clauses.jsonl:1", "broken JSON"]),
        (C, b'\n["id"]\n', ["clauses.jsonl:2", "one JSON object"]),
        (C, b"\xff\xfe", ["clauses.jsonl", "UTF-8"]),
        ("card.json", b"{}", ["card.json", "'name' is missing"]),
        ("card.json", b'{"name": "x", "license": "y"}', ["card.json", "'license'", "'licence'"]),
    ],
)
def test_a_broken_file_is_named(files: Files, write: Write, name: str, content: bytes, said: list[str]) -> None:
    folder = write(files)
    (folder / name).write_bytes(content)
    with pytest.raises(TaskError) as error:
        read(folder)
    for part in said:
        assert part in str(error.value)


def test_a_folder_without_clauses_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"name": "x", "licence": "y", "source": "z"}))
    with pytest.raises(TaskError, match=r"clauses\.jsonl: cannot be read"):
        read(tmp_path)


def test_blank_lines_a_byte_order_mark_and_odd_separators_are_no_trouble(files: Files, write: Write) -> None:
    files[C][3]["text"] = "The north gate\u2028closes at 21:15 every evening."
    folder = write(files)
    lines = (folder / C).read_text(encoding="utf-8").replace("\n", "\n\n")
    (folder / C).write_text("\ufeff" + lines, encoding="utf-8")
    assert len(read(folder).memories) == 4


@pytest.mark.parametrize(
    ("value", "text", "stands"),
    [
        ("9 days", "within 9 days of", True),
        ("9 days", "within 19 days of", False),
        ("Marit Oja", "ask MARIT OJA.", True),
        ("€31", "pays €31.", True),
        ("K4", "form K40", False),
    ],
)
def test_stands_in_is_bounded_by_tokens(value: str, text: str, stands: bool) -> None:
    assert stands_in(value, text) is stands


FORMS = st.lists(st.sampled_from(["4 degrees", "minus 4 degrees", "9", "9 days", "29 days"]), min_size=1)


@given(own=FORMS, others=st.lists(FORMS))
def test_no_rival_stands_in_an_own_form_and_none_is_lost(own: list[str], others: list[list[str]]) -> None:
    rivals = rivals_of(own, others)
    assert len(rivals) == len(set(rivals))
    assert not any(stands_in(rival, form) for rival in rivals for form in own)
    for form in {form for other in others for form in other} - set(rivals):
        assert any(stands_in(form, mine) for mine in own)
