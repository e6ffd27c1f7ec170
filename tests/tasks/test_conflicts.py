"""What contradicts is named: two rows, two clauses; and a check compares as the scorer does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.base import QA
from tasks.check import main
from tasks.conflicts import Conflicts
from tasks.documents.cutting import Clause
from tasks.keys import is_correct
from tasks.local import read
from tasks.values import stands_in

NORTH = Clause("n", "Parking is free for 3 hours.", "Parking", "north/book.md", 1)
SOUTH = Clause("s", "Parking is free for 5 hours.", "Parking", "south/book.md", 1)


@pytest.mark.parametrize(
    ("question", "clashes"),
    [("How long is parking free?", True), ("How long is parking free in the north?", False)],
)
def test_a_question_that_two_clauses_answer_otherwise(question: str, clashes: bool) -> None:
    found = Conflicts([NORTH, SOUTH]).against(NORTH, question, ("3 hours",))
    assert found == ((SOUTH, SOUTH.text) if clashes else None)
    assert Conflicts([NORTH]).against(NORTH, question, ("3 hours",)) is None


def refused(folder: Path, files: dict[str, str], rows: str) -> list[str]:
    for name, text in {**files, "questions.csv": rows}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [str(problem) for problem in read(str(folder), num_train=9, num_heldout=9).questions.refused]


BOOKS = {
    "north/book.md": "# Book\n\nThe canteen closes at 14:10. Report accidents to the shift lead.\n",
    "south/book.md": "# Book\n\nThe canteen closes at 15:35. Report accidents to the shift lead.\n",
}


def test_two_documents_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    rows = "question,answer,document\nWhen does the canteen close?,14:10,north/book.md\n"
    rows += "Whom does one tell of accidents?,shift lead,south/book.md\n"
    (said,) = refused(tmp_path, BOOKS, rows)
    assert said.startswith(
        "questions.csv:2: is answered '14:10' by north/book.md#book and otherwise by south/book.md"
    )
    assert "'The canteen closes at 15:35.'" in said


def test_two_rows_with_one_question_and_two_answers_are_named(tmp_path: Path) -> None:
    rows = (
        "question,answer\nWhat is at the desk?,green book\nWhat is at the desk,brass lamp\nWhat is at the desk?,\n"
    )
    text = {"a.md": "# Desk\n\nVisitors sign the green book beside the brass lamp of the porter.\n"}
    said = refused(tmp_path, text, rows)
    assert [line.partition(" asks ")[0] for line in said] == [f"questions.csv:{n}:" for n in (2, 3, 4)]
    assert "answers 'green book', line 3 'brass lamp'" in said[0]


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, BOOKS, "question,answer,document\nWhen?,14:10,east/book.md\n")
    assert "names the document 'east/book.md', of which nothing was read" in said[0]


SAME = [
    ("1,500", "The hall is 1 500 metres away."),
    ("1 500 metres", "The hall is 1,500 metres away."),
    ("-5", "It is kept at \u22125 degrees."),
    ("\u22125 degrees", "It is kept at -5 degrees."),
    ("2\u20134", "Groups have 2 to 4 people."),
    ("2 to 4 days", "It takes 2\u20134 days."),
    ("IV", "It is a product of grade 4."),
    ("4", "It is a product of grade IV."),
    ("12", "The badge costs １２ euros."),
    ("24", "Leave is 24 days."),
    ("A", "Goods go to dock A."),
    ("The The", "The band The The plays."),
]
OTHER = [
    ("5", "It takes 15 days."),
    ("9 days", "It takes 9 weeks."),
    ("2\u20135", "It takes 2 to 4 days."),
    ("XL", "40"),
]


@pytest.mark.parametrize(("key", "text"), SAME)
def test_check_and_scorer_agree_on_what_is_the_same(key: str, text: str) -> None:
    assert stands_in(key, text)
    assert is_correct(text, QA("q", "What is it?", key, ("c",)))


@pytest.mark.parametrize(("key", "text"), OTHER)
def test_check_and_scorer_agree_on_what_is_not(key: str, text: str) -> None:
    assert not stands_in(key, text)
    assert not is_correct(text, QA("q", "What is it?", key, ("c",)))


@pytest.mark.parametrize("key", ["A", "a", "The", "The The", "An", "It", "no", "-", "?", "C++", "IV"])
def test_any_key_is_used_or_refused_in_a_line(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"# Dock\n\nThe goods of the guests go to {key} when the porter rings the brass bell twice.\n"
    refused(tmp_path, {"a.md": text}, f"question,answer,quote\nWhere to?,{key},brass bell\n")
    assert main([f"path={tmp_path}"]) in (0, 2)
    seen = capsys.readouterr()
    assert "Traceback" not in seen.err and seen.err.count("\n") <= 1
