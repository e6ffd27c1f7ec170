"""Every kind of unsoundness is found, and a sound task passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.base import QA, TaskError
from tasks.handbook import read_handbook
from tasks.validate import check, content_words, coverage, gives, nearly_equal, problems, remarks

Files = dict[str, list[dict[str, Any]]]
Write = Callable[[Files], Path]
C, U, R = "clauses.jsonl", "unanswerable.jsonl", "revisions.jsonl"


def found(folder: Path) -> list[str]:
    return problems(read_handbook(folder, num_train=9, num_heldout=9))


def test_a_sound_task_passes(files: Files, write: Write) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    assert problems(task) == []
    check(task)


def _ask(clause: int, question: int, text: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        files[C][clause]["questions"][question]["question"] = text

    return edit


def _cue(files: Files) -> None:
    files[C][0]["cues"][0]["question"] = "How high is the lunch money for Lisbon?"  # 2.04a/test1: "of"


def _answer(files: Files) -> None:
    files[C][0]["slots"]["amount"] = {"answer": "28 euros"}


def _rival_in_text(files: Files) -> None:
    files[C][0]["text"] += " It was 31 euros before."


def _covered(files: Files) -> None:
    files[U][1]["question"] = "Who takes the claims for meals in Lisbon?"


def _covered_train(files: Files) -> None:
    files[U][0]["question"] = "When is the north gate closed in the evening?"


def _all_cued(files: Files) -> None:
    for row in files[C]:
        slot = next(iter(row["slots"]))
        row["cues"] = [{"slot": slot, "question": f"What is the {slot} of rule number {row['id']}?"}]


def _none_cued(files: Files) -> None:
    for row in files[C]:
        row["cues"] = []


def _unchanged_revision(files: Files) -> None:
    files[R][0]["slots"]["amount"]["answer"] = "31 euros"
    files[R][0]["text"] = files[C][1]["text"]


def _untested(files: Files) -> None:
    files[C][3]["questions"][0]["split"] = "dev"


def _garbled(files: Files) -> None:
    files[C][0]["text"] += " It is 5 \ufffd."


def _all_untested(files: Files) -> None:
    for row in files[C]:
        row["questions"] = []


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_answer, "2.04a/test1: its answer '28 euros' does not stand"),
        (_rival_in_text, "2.04a/test1: the rival '31 euros' stands in its own clause"),
        (
            _ask(0, 1, "Is the lunch money of Lisbon really 27 euros?"),
            "2.04a/test1: it holds the value '27 euros'",
        ),
        (_cue, "2.04a/test1 is nearly the training question 2.04a/cue1"),
        (_ask(0, 0, "How high is the lunch money in Lisbon?"), "2.04a/dev1 and 2.04a/test1 are nearly the same"),
        (_ask(0, 2, "How high is the lunch money in Lisbon?"), "2.04a/test1 and 2.04a/test2 are nearly the same"),
        (_ask(2, 1, "Who wants to see my Lisbon receipts?"), "stands 2 times"),
        (_ask(3, 0, "When does the choir rehearse?"), "nearly the training question abstain/U1"),
        (_covered, "unanswerable U2: clause 2.04a seems to cover it"),
        (_covered_train, "unanswerable abstain/U1: clause 3.01 seems to cover it"),
        (_unchanged_revision, "revision 2.04b: no question has a new key"),
        (_garbled, "clause 2.04a holds '\ufffd'"),
        (_ask(0, 1, "Who pays for the lunch\x07 of Lisbon?"), r"question 2.04a/test1 holds '\x07'"),
        (_all_untested, "no test question on a single clause"),
    ],
)
def test_an_unsound_task_is_found(files: Files, write: Write, edit: Callable[[Files], None], said: str) -> None:
    edit(files)
    assert any(said in problem for problem in found(write(files)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_all_cued, "every clause has cues"),
        (_none_cued, "no clause has cues"),
        (_untested, "clause 3.01: it has no test question"),
    ],
)
def test_an_empty_part_of_the_tables_is_no_problem_but_remarked(
    files: Files, write: Write, edit: Callable[[Files], None], said: str
) -> None:
    sound = read_handbook(write(files), num_train=9, num_heldout=9)
    assert remarks(sound) == []
    edit(files)
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    assert problems(task) == []
    assert [remark for remark in remarks(task) if said in remark]


@pytest.mark.parametrize("name", ["licence", "source", "version"])
def test_an_unrecorded_origin_is_a_problem(files: Files, write: Write, name: str) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    assert f"its {name} is not recorded; set it" in problems(replace(task, **{name: " "}))


def test_a_held_out_question_marked_train_is_a_problem(files: Files, write: Write) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    first = replace(task.questions[0], split="train")
    assert any(first.id in problem for problem in problems(replace(task, questions=(first, *task.questions[1:]))))


def test_doubled_ids_and_dangling_references_are_found(files: Files, write: Write) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    doubled = replace(task, memories=(*task.memories, task.memories[0]), sft=(*task.sft, task.sft[0]))
    said = " ".join(problems(doubled))
    assert "clause id '2.04a' is used 2 times" in said
    assert "question id '2.04a/cue1' is used 2 times" in said
    assert f"conversation id '{task.sft[0].id}' is used 2 times" in said
    gone = replace(task, memories=tuple(m for m in task.memories if m.id != "2.04b"))
    said = " ".join(problems(gone))
    assert "question 2.04b/test1: there is no clause '2.04b'" in said
    assert "revision 2.04b: there is no such clause" in said


def test_a_held_out_conversation_that_is_trained_on_is_found(files: Files, write: Write) -> None:
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    leaked = replace(task, sft=(*task.sft, replace(task.sft_heldout[0], id="again")))
    assert any(f"{task.sft_heldout[0].id} is trained on" in problem for problem in problems(leaked))


def test_check_names_the_first_problem_and_the_count(files: Files, write: Write) -> None:
    _answer(files)
    task = read_handbook(write(files), num_train=9, num_heldout=9)
    count = len(problems(task))
    assert count > 1
    with pytest.raises(TaskError, match=rf"tiny: .*28 euros.*\({count} problems in all\)"):
        check(task)


@pytest.mark.parametrize(
    ("one", "two", "near"),
    [
        ("What is the fee in Cork?", "what is the fee in cork", True),
        ("How many days does a driver in Cork have?", "How many days has a driver in Cork?", True),
        ("What is the fee in Cork?", "What is the fee in Lisbon?", True),  # one pattern, one word
        ("What is the fee in Cork?", "How much does it cost people in Lisbon?", False),
        ("Who signs the form?", "By when must the form be signed?", False),
    ],
)
def test_near_equality(one: str, two: str, near: bool) -> None:
    assert nearly_equal(one, two) is near
    assert nearly_equal(two, one) is near


@pytest.mark.parametrize(
    ("text", "answer", "given"),
    [
        ("The flag is red, green and blue.", "blue, green, red", True),
        ("The flag is red, green and blue.", "red, green, white", False),
        ("Dogs are not allowed.", "no", True),
        ("Dogs are allowed.", "no", False),
    ],
)
def test_what_a_text_gives(text: str, answer: str, given: bool) -> None:
    assert gives(text, QA("", "Are dogs allowed, and which colours has the flag?", answer, ("x",))) is given


def test_coverage_counts_content_words_without_endings(files: Files, write: Write) -> None:
    clause = read_handbook(write(files), num_train=9, num_heldout=9).memory("3.01")
    assert content_words("Who closed the gates?") == content_words("When does the gate close?")
    assert coverage("Is the north gate closed at noon?", clause) == pytest.approx(3 / 4)
    assert coverage("Is the gate closed?", clause) == 0.0  # two content words say too little
