"""The dry run prints everything, its counts add up, and its status says whether a task can be compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from document_files import MARKDOWN, write_all

from tasks.check import length_table, main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    seen = capsys.readouterr()
    return status, seen.out, seen.err


def numbers(line: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", line)]


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def make_trouble(folder: Path) -> None:
    """One of each problem beside a good handbook."""
    folder.mkdir()
    (folder / "handbook.md").write_text(MARKDOWN + "\n## Crumb\n\nSee there.\n", encoding="utf-8")
    (folder / "copy.md").write_text(MARKDOWN, encoding="utf-8")
    (folder / "list.txt").write_text("item " * 300)
    (folder / "empty.txt").write_text("")
    (folder / "latin.md").write_bytes("\nFu\u00dfg\u00e4nger\n".encode("latin-1"))
    (folder / "prices.csv").write_text("name,price\nx,1\n")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "rows.jsonl").write_text('{"text": "The pool opens at 7:30 on weekdays."}\nbroken\n')
    (folder / "loop").symlink_to(folder)
    questions = [
        {"question": "Who takes the receipts in the Cork branch?", "answer": "Nora Daly"},
        {"question": "How long until the bell of the south rings?", "answer": "90 seconds"},
        {"question": "When can I swim?", "answer": "7:30", "clause": "gone"},
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)) + "\nbroken\n")


def test_a_clean_folder_is_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, f"path={write_all(tmp_path / 'documents')}")
    assert (status, err) == (0, "")
    assert "Files      7 found = 7 read + 0 skipped" in out
    assert "MACHINE-MADE" in out
    assert out.rstrip().endswith("Usable: it can be compared.")


def test_every_problem_is_named_and_the_counts_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trouble(tmp_path / "d")
    status, out, err = run(capsys, f"path={tmp_path / 'd'}")
    assert (status, err) == (0, "")
    for said in (
        "empty.txt: is empty",
        "latin.md:2: is not UTF-8",
        "prices.csv:1: has the columns 'name', 'price'",
        "photo.png: is of the kind '.png'",
        "rows.jsonl:2: broken JSON",
        "loop: is a link to a folder",
        "handbook.md:5: says the same as copy.md#meal-allowance-lisbon (copy.md:5)",
        "'See there.' under the heading 'Crumb'",
        "list.txt:1: one sentence of 300 words; break it up",
        "copy.md#meal-allowance-lisbon ~ copy.md#meal-allowance-cork",
        "questions.jsonl:3: names the clause 'gone'",
        "questions.jsonl:4: broken JSON",
    ):
        assert said in out
    found, read, skipped, questions = numbers(line_of(out, "Files"))
    assert found == read + skipped + questions == 9
    cut, used, duplicates, short, long = numbers(line_of(out, "Clauses  "))
    assert cut == used + duplicates + short + long
    assert (duplicates, short, long) == (3, 1, 1)
    rows, asked, refused = numbers(line_of(out, "Questions  "))
    assert rows == asked + refused == 4
    assert asked == 2


def test_lines_that_say_the_same_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.md").write_text("# Flag\n\nThe flag is blue on Mondays at 9:15 in front of the house.\n")
    rows = ["When is it shown?,9:15"] * 60
    (tmp_path / "questions.csv").write_text("\n".join(["question,answer", *rows]))
    _, out, _ = run(capsys, f"path={tmp_path}")
    assert "Questions refused (59):" in out
    assert "(and 58 more like it: lines 4, 5, 6, 7, 8, 9, ...)" in out
    assert len(out.splitlines()) < 40
    _, out, _ = run(capsys, f"path={tmp_path}", "show=all")
    assert out.count("is nearly the test question of line 2") == 59


def test_characters_of_each_file_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = "<nav>Home</nav><main><h1>Flag</h1><p>The flag is blue at 9:15 on Mondays.</p></main>"
    (tmp_path / "a.html").write_text(page)
    _, out, _ = run(capsys, f"path={tmp_path}")
    assert "  a.html: 35 characters = 31 in clauses + 4 outside the main part" in out


def test_a_folder_that_cannot_be_used_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\x00\xff")
    status, out, err = run(capsys, f"path={tmp_path}")
    assert status == 2
    assert "a.txt:1: holds a NUL byte" in out
    assert "write a questions.csv" not in out  # there is nothing to ask about
    assert err == ("error: this task cannot be compared yet: it has no clause; add one (2 problems in all)\n")


def test_text_without_facts_is_told_to_bring_its_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.md").write_text("All are kind to each other, at work and on the way home from it.")
    status, out, err = run(capsys, f"path={tmp_path}")
    assert status == 2
    assert "1 clause cut from 1 file," in out
    assert "write a questions.csv" in out
    assert err.endswith("it has no test question on a single clause; write one\n")  # the only problem: no count


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("path=/no/such/folder", "error: path=/no/such/folder: no such file or folder"),
        ("task=nope", "error: no task is called 'nope'"),
        ("task=local", "error: task=local needs path="),
        ("task=regs nonsense=1", "error: task regs has no option 'nonsense'"),
        ("nonsense", "error: 'nonsense' is not understood"),
        ("show=clauses", "error: say what to check"),
        ("path=x show=some", "error: show=some is not known"),
        ("path=x size=1", "error: size: no such option here"),
    ],
)
def test_a_wrong_word_is_one_sentence(capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    status, out, err = run(capsys, *word.split())
    assert (status, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_registered_task_is_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "task=regs", "num_clauses=6", "seed=1")
    assert status == 0
    assert "Clauses    6" in out
    assert "6 of 6 clauses have a test question (100%)" in out


@pytest.mark.parametrize(
    ("show", "there"), [("clauses", (True, False)), ("questions", (False, True)), ("all", (True, True))]
)
def test_what_can_be_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], show: str, there: tuple[bool, bool]
) -> None:
    _, out, _ = run(capsys, f"path={write_all(tmp_path / 'documents')}", f"show={show}")
    assert ("  W1  Waste\n    Glass is collected" in out, "Which word is missing" in out) == there


def test_nothing_in_a_name_or_a_text_acts_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "# Gate\n\nThe gate closes at 9:15 and costs \u202e45 euros\u202c for 3 people, \u2067says Ida Lund.\n"
    for name in (b"caf\xe9.md", b"a\x1b[31m\nb.md", "\u202edm.md".encode(), b"<b>|$.md"):
        with open(bytes(tmp_path) + b"/" + name, "wb") as file:
            file.write(text.encode())
    status, out, err = run(capsys, f"path={tmp_path}", "show=all")
    assert (status, err) == (0, "")
    assert "Files      4 found = 2 read + 2 skipped" in out
    assert "caf<U+DCE9>.md: has a name that" in out
    assert "a<U+001B>[31m" in out
    assert not set(out) & set("\x1b\u202e\u202c\u2067")
    assert "costs 45 euros for 3 people" in out


def test_a_folder_whose_name_is_no_text_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, f"path={tmp_path}/caf\udce9")
    assert (status, out) == (2, "")
    assert "no text in UTF-8; rename it" in err


def test_help_names_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "regs" in out and "path=" in out


def test_lengths_add_up() -> None:
    assert length_table([24, 25, 80, 81]) == (
        "80 words in the middle (24 to 81); 1 below 25, 2 within 25-80, 1 above 80"
    )
