"""Whatever a clause holds, a report shows it as it is and does nothing else with it."""

from __future__ import annotations

import html
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fixtures import ODD

from reports.text import md, md_table, one_line, redact

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates included


def unescape(markdown: str) -> str:
    """What a CommonMark reader makes of it."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown))


@given(ANY_TEXT)
def test_one_line_is_one_writable_visible_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    for char in shown:
        assert unicodedata.category(char) != "Cc"
        assert char not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u200e\u200f\u200b\ufeff"
    assert shown.count("\u2068") == shown.count("\u2069")


@given(ANY_TEXT)
def test_markdown_reads_back_as_the_text(text: str) -> None:
    escaped = md(text)
    assert not set("<>|$") & set(escaped)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]]", escaped)
    assert unescape(escaped) == one_line(text)


def test_plain_words_stay_plain() -> None:
    assert md("40 euros a day, at most") == "40 euros a day, at most"
    assert one_line("日本語 and 🦊👩‍💻") == "日本語 and 🦊👩‍💻"


def test_a_cut_text_says_so() -> None:
    assert one_line("abcdef", 4) == "abc…"
    assert len(one_line("x" * 99, 10)) == 10


def test_terminal_escapes_and_bidi_marks_are_shown_not_obeyed() -> None:
    assert one_line("a\x1b[31mb") == "a⟨U+001B⟩[31mb"
    assert one_line("a\u202eb") == "a⟨U+202E⟩b"


@given(st.lists(ANY_TEXT, min_size=3, max_size=3))
def test_a_table_keeps_its_columns(cells: list[str]) -> None:
    table = md_table(["a", "b", "c"], [[md(cell) for cell in cells]])
    lines = table.split("\n")
    assert len(lines) == 3
    assert all(line.count("|") == 4 for line in lines)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 cells"):
        md_table(["a", "b"], [["only one"]])


def test_odd_text_survives() -> None:
    assert unescape(md(ODD)) == one_line(ODD)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql://db/x"),
        ("https://me:p%40ss@host:5000", "https://host:5000"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_passwords_are_left_out(uri: str, shown: str) -> None:
    assert redact(uri) == shown
