"""report.html: one page that opens from disk, loads nothing, and shows every text as it is."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixtures import METHODS, ODD, make_comparison, make_turn

from eval.stats import Estimate
from methods.base import Lookup
from reports.base import Comparison
from reports.figures import ByTurn
from reports.html import page, write_html
from reports.metric_names import GROUPS
from reports.text import visible

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
SECTIONS = (
    "answer",
    "verdicts",
    "comparison",
    "retention",
    "pareto",
    "latency",
    "ledger",
    "structure",
    "lifecycle",
    "ability",
    "cost-of-pass",
    "failures",
    "given",
    "setup",
)
MARK = "<b id=x onclick=y()>|$\"'&amp;🦊 שלום"  # must come out as text, nowhere as markup


class Page(HTMLParser):
    """What a reader of HTML finds: tags with their attributes, ids, texts; tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.tables: list[list[int]] = []  # cells of each row
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), attrs
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:], self.getpos())
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def values(self, attribute: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == attribute]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Everything that a page can show."""
    comparison = make_comparison(tmp_path_factory.mktemp("html"))
    pair = {"value": 0.1, "low": -0.1, "high": 0.3, "p_holm": 0.5, "mde": 0.2, "outcome": "no_difference_shown"}
    pair |= {"families_needed": 30}
    curve = {turn: Estimate(0.5, 0.4, 0.6, 9) for turn in range(3)}
    by_turn: ByTurn = {name: {"first_ask": curve} for name in METHODS}
    pairs = {"retention/accuracy": {"recall - sft": pair}}
    return dataclasses.replace(comparison, by_turn=by_turn, pairs=pairs)


@pytest.fixture(scope="module")
def text(whole: Comparison) -> str:
    return page(whole)


def test_every_section_is_there_and_in_the_contents(text: str) -> None:
    found = Page(text)
    sections = [attrs["id"] for tag, attrs in found.tags if tag == "section"]
    assert tuple(sections) == SECTIONS  # verdicts first
    links = [attrs.get("href") or "" for tag, attrs in found.tags if tag == "a"]
    assert [link for link in links if "note" not in link] == [f"#{name}" for name in SECTIONS]
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    assert set(GROUPS.values()) - {"Cost"} <= set(found.words)  # that one is two sections
    for words in (
        "Of 4 claims: 1 supported,",
        "Recall keeps as much as RAG.",
        "no difference shown",
        "Break-even",
        "0123abc",
        "lora_rank",
    ):
        assert words in found.text, words


def test_figures_are_vectors_with_captions_units_and_n(text: str) -> None:
    found = Page(text)
    figures = sum(tag == "figure" for tag, _ in found.tags)
    assert (
        figures == sum(tag == "svg" for tag, _ in found.tags) == sum(tag == "figcaption" for tag, _ in found.tags)
    )
    assert figures == 7  # lifecycle and ability were not measured
    assert not [tag for tag, _ in found.tags if tag in ("img", "canvas", "picture")]
    for words in (
        "mean seconds of an answer (batch 1)",
        "share (95% interval)",
        "n=64",
        "questions served by one fit",
    ):
        assert words in found.text, words


def test_it_loads_nothing_and_runs_nothing(text: str) -> None:
    found = Page(text)
    assert not {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed", "base", "form", "img"}
    assert "default-src 'none'" in text
    for attribute in ("src", "srcset", "data", "action", "poster", "xlink:href"):
        assert found.values(attribute) == []
    assert {value for value in found.values("href") if not value.startswith("#")} == {
        "data:,"
    }  # no favicon asked for
    assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
    assert not re.search(r"@import|url\((?!#)|https?://", text)


def test_it_is_small_and_whole_on_disk(whole: Comparison, text: str) -> None:
    path = write_html(whole)
    assert path == whole.run_dir / "report.html"
    assert path.stat().st_size < 3_000_000
    assert path.read_text(encoding="utf-8") == text  # and the same a second time


def test_a_long_run_stays_below_three_megabytes(whole: Comparison) -> None:
    """Ever more turns do not make the page longer: only the worst are shown, long texts are cut."""
    long = [
        make_turn(m, f"d{i}", 1, "It is 35 euros. " * 99, text="x" * 9_000) for m in METHODS for i in range(100)
    ]
    assert len(page(dataclasses.replace(whole, turns=long)).encode()) < 1_000_000


def test_a_dash_says_why(text: str) -> None:
    """Beside the cell for who points at it, and as a footnote for who prints."""
    found = Page(text)
    dashes = [attrs for tag, attrs in found.tags if tag == "abbr"]
    assert dashes and all(attrs.get("title") for attrs in dashes)
    reasons = {attrs["title"] for attrs in dashes}
    assert {"it never looks anything up", "the ability pass was not run", "not measured in this run"} <= reasons
    for reason in reasons:
        assert found.words.count(str(reason)) >= 1, reason
    assert "Not measured in this run: the ability pass was not run." in found.text
    assert "lifecycle" in found.text.lower() and "stale after an update" in found.text  # named though not run


def test_odd_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    """Wherever a text of others can stand: method, task, verdict, reason, answer, clause, id, setting."""
    methods = ("recall", MARK)
    turns = [make_turn(name, f"d{MARK}", 0, MARK, text=MARK, looked_up=(MARK, "")) for name in methods]
    plain = make_comparison(tmp_path)
    summary: dict[str, Any] = {**plain.summary, "task": MARK}
    cells = plain.summary["methods"]["recall"]
    summary["methods"] = {"recall": cells, MARK: {**cells, "retention/accuracy": {"value": None, "reason": MARK}}}
    summary["methods"][MARK][f"ledger/{MARK}"] = {"value": 1.0, "low": 0.5, "high": 1.0, "n": 3}
    summary["verdicts"] = {MARK: {"verdict": MARK, "claim": MARK, "reason": MARK}}
    odd = dataclasses.replace(plain, summary=summary, turns=turns, config={MARK: MARK}, environment={"a": MARK})
    found = Page(page(odd))
    assert "x" not in found.values("id") and "onclick" not in {k for _, attrs in found.tags for k in attrs}
    assert found.text.count(MARK) >= 20
    for rows in found.tables:
        assert rows and len(set(rows)) == 1, rows  # no cell is lost, none is added


def test_hidden_and_reordering_characters_are_shown(text: str) -> None:
    assert "\u202e" not in text and "\u200f" not in text and "⟨U+202E⟩" in text
    assert visible(ODD) in Page(text).text  # lines, emoji and Hebrew as they are
    assert "<script>" not in text


def test_right_to_left_text_has_a_direction_of_its_own(text: str) -> None:
    """Each text of a record stands in an element with dir="auto" and cannot reorder what is beside it."""
    for at in (match.start() for match in re.finditer("שלום", text)):
        opened = text[text.rindex("<", 0, text.rindex(">", 0, at)) : at]
        assert 'dir="auto"' in opened or text.rfind('dir="auto"', 0, at) > text.rfind("</", 0, at), opened[:80]


def test_failures_stand_beside_what_was_looked_up(text: str) -> None:
    found = Page(text)
    articles = [attrs for tag, attrs in found.tags if tag == "article"]
    assert 3 <= len(articles) <= 3 * len(METHODS)
    for words in ("gave the value of a near-miss clause: 35 euros", "per-diem-porto", "cosine 0.91", "✘ wrong"):
        assert words in found.text, words
    assert "12 of 15 scored answers wrong" in found.text


def test_the_right_clause_and_a_lookup_of_nothing_are_told_apart(whole: Comparison) -> None:
    turns = [
        make_turn("recall", "d", 0, "50 euros."),
        make_turn("sft", "d", 0, "", looked_up=()),
        make_turn("rag", "d", 0, "40 euros.", looked_up=("",)),
    ]
    found = Page(page(dataclasses.replace(whole, turns=turns)))
    assert found.text.count("✔ the right clause") == 1 and "looked up nothing" in found.text
    assert "the null memory" in found.text and "no answer; written:" in found.text
    assert found.words.count("✔ right") == 1 and found.words.count("✘ wrong") == 2
    assert "1 of 1 scored answers wrong" in found.text and "0 of 1 scored answers wrong" in found.text


def test_control_arms_bound_the_table_and_fail_in_no_list(whole: Comparison) -> None:
    """They stand beside the rivals' failures; their own are what they are for."""
    summary = {**whole.summary, "left_out": {"full_context": "too long for the window"}}
    bound = dataclasses.replace(whole, summary=summary, config={"run_methods": ["recall", "rag"]})
    assert bound.rivals == ("recall", "rag")
    found = Page(page(bound))
    assert found.text.count("of 15 scored answers wrong") == 2
    heads = [found.words[i + 1] for i, word in enumerate(found.words) if word == "sft"]
    assert heads  # its answers are shown
    assert "left out: full context" in found.text and "too long for the window" in found.text


def test_a_summary_alone_makes_a_page(tmp_path: Path) -> None:
    found = Page(page(Comparison({"task": "regs", "methods": {"recall": {}, "sft": {}}}, tmp_path)))
    assert tuple(attrs["id"] for tag, attrs in found.tags if tag == "section") == SECTIONS
    for words in (
        "No hypothesis was judged",
        "No turns were recorded",
        "not measured in this run",
        "No stage was timed",
    ):
        assert words in found.text, words


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=50)
def test_visible_text_can_be_written_and_hides_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not set(shown) & set("\x00\x1b\x7f\u202e\u200f\u2066\ufeff\r\u2028")
    assert visible(shown) == shown
    assert len(visible(text, 10)) <= 10 * 8 + 1


def test_print_and_dark_mode_are_cared_for(text: str) -> None:
    assert "@media print" in text and "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_what_came_next_was_not_used(comparison: Comparison) -> None:
    """Of three retrieved texts none stands again among those that came next."""
    ranked = tuple((f"c{i}", 0.9 - i / 10) for i in range(6))
    turn = make_turn("rag", "d9", 0, "It is 35 euros.")
    lookups = tuple(Lookup(name, score, "A text.", ranked) for name, score in ranked[:2])
    turn = dataclasses.replace(turn, answer=dataclasses.replace(turn.answer, lookups=lookups))
    text = page(dataclasses.replace(comparison, turns=[turn]))
    assert [re.sub(r"<.+?>", "", found) for found in re.findall(r"next: (.+?)</span>", text)] == [
        "c2 0.70, c3 0.60, c4 0.50"
    ] * 2
