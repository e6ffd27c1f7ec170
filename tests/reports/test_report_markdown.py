"""report.md and its figures, and the terminal's closing screen."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from report_fixtures import METHODS, ODD, make_summary, make_turn
from rich.cells import cell_len

from eval.stats import Estimate
from eval.summary import comparisons, summarise
from eval.verdict import judge_all
from reports import figures, markdown, terminal
from reports.base import Comparison, LoggedRun, default_store, flatten
from reports.failures import KINDS, NO_ANSWER, RIVAL, UNCOVERED, failures, pick
from reports.text import md

# ------------------------------------------------------------------------------------- report.md


def test_report_has_its_parts_in_order(comparison: Comparison) -> None:
    text = markdown.write_report(comparison).read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert headings[:4] == ["Verdicts", "What was compared", "Comparison", "Retention by distance"]
    assert headings[-3:] == ["Worst failures", "What each method was given", "Configuration"]
    assert {"Ledger: where answers are lost", "Structure", "Cost"} < set(headings)
    assert "**H1 supported**: Recall keeps as much as RAG. (against rag:" in text
    assert "0123abc" in text and "2.13.0" in text
    assert "No figures: the ability pass was not run." in text


def test_report_is_safe_against_odd_text(comparison: Comparison) -> None:
    text = markdown.report(comparison)
    assert "<script" not in text and "\u202e" not in text and "\u200f" not in text
    assert md(ODD) in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_links_and_figures_exist(comparison: Comparison) -> None:
    path = markdown.write_report(comparison)
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert {link.removeprefix("figures/") for link in links} == {p.name for p in path.parent.glob("figures/*")}
    assert {"figures/retention_by_distance.svg", "figures/cost_against_retention.svg"} < set(links)
    for link in links:
        assert ElementTree.parse(path.parent / link).getroot().tag.endswith("svg")
    assert (path.parent / "tables" / "metrics.csv").is_file()


def test_report_of_a_summary_alone(tmp_path: Path) -> None:
    """Nothing but the numbers: every part that needs more is left out, none breaks."""
    bare = {"task": "regs", "methods": {"recall": {}, "sft": {}}}
    text = markdown.report(Comparison(bare, tmp_path))
    assert "No hypothesis was judged in this run." in text
    assert "No figures: not measured in this run." in text
    assert "Worst failures" not in text
    assert figures.save_figures(bare, tmp_path) == []


def test_reports_take_what_eval_makes(comparison: Comparison) -> None:
    """The whole way from records, through JSON, with no hand-made summary in between."""
    turns, costs = comparison.turns, comparison.costs
    verdicts = judge_all(turns, costs)
    summary = summarise(turns, costs, comparison.fits, verdicts=verdicts)
    real = dataclasses.replace(
        comparison,
        summary=json.loads(json.dumps(summary)),
        pairs=json.loads(json.dumps(comparisons(turns))),
    )
    text, screen = markdown.report(real), terminal.render(real)
    for key in verdicts:
        assert f"**{md(key)} " in text
        assert key in screen.partition("report: ")[0]
    assert "Method against method" in text and "| recall - sft |" in text
    assert "no difference shown" in text
    assert max(cell_len(line) for line in screen.partition("report: ")[0].splitlines()) <= 100


def test_worst_failures_are_counted_and_varied(comparison: Comparison) -> None:
    found = failures(comparison.turns, "recall")
    assert len(found) == 12
    shown = pick(found, 3)
    assert [f.rank for f in shown] == sorted({f.rank for f in found})[:3]
    assert shown[0].detail == "35 euros"
    assert pick(found, 99)[:3] == shown and len(pick(found, 99)) == 12


def test_failures_are_told_apart() -> None:
    turns = [
        make_turn("m", "a", 0, "It is 35 euros."),
        make_turn("m", "b", 0, "The handbook does not say."),
        make_turn("m", "c", 0, "50 euros."),
        make_turn("m", "d", 0, "50 euros.", looked_up=("other",)),
        make_turn("m", "e", 0, "50 euros.", looked_up=("",)),
        make_turn("m", "f", 0, "50 euros.", kind="unanswerable"),
        make_turn("m", "g", 0, ""),
        make_turn("m", "h", 0, "40 euros."),
        make_turn("other", "a", 0, ""),
    ]
    found = failures(turns, "m")
    assert [f.record.dialogue_id for f in found] == ["a", "f", "c", "d", "e", "b", "g"]
    assert [f.rank for f in found] == list(range(len(KINDS)))
    assert (found[0].rank, found[1].rank, found[-1].rank) == (RIVAL, UNCOVERED, NO_ANSWER)


def test_settings_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": "1", "a.c": "{}", "d": "[1, 2]"}


# --------------------------------------------------------------------------------------- figures


def test_figures_are_reproducible_and_labelled() -> None:
    summary = make_summary(("recall", "$x$", "_hidden"))
    curve = {turn: Estimate(0.5, 0.4, 0.6, 64) for turn in range(2)}
    by_turn: figures.ByTurn = {name: {"first_ask": curve, "re_ask": curve} for name in summary["methods"]}
    first, second = (figures.draw_all(summary, by_turn) for _ in range(2))
    assert first == second
    assert set(first) == {*figures.FIGURES, "retention_by_turn"} - {"lifecycle", "ability"}
    for name, text in first.items():
        assert "$x$" in text and "_hidden" in text, name
        assert re.search(r"\b(64|24)\b", text), name  # n
        assert len(text) < 60_000, name


def test_bars_come_with_the_passes_that_measure_them() -> None:
    summary = make_summary()
    for cells in summary["methods"].values():
        cells["lifecycle/stale_rate"] = {"value": 0.25, "low": 0.1, "high": 0.4, "n": 16}
        cells["lifecycle/write_s"] = {"value": 3.0, "low": None, "high": None, "n": 6}  # no share
        cells["ability/after/gsm8k"] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 99}  # no row of its own
        cells["ability/change"] = {"value": -0.5, "low": -0.6, "high": -0.4, "n": 99}  # in [-1, 1]
    drawn = figures.draw_all(summary)
    assert "stale after an update ↓" in drawn["lifecycle"] and "n=16" in drawn["lifecycle"]
    assert "write" not in drawn["lifecycle"]
    assert "after/gsm8k" in drawn["ability"] and "change" not in drawn["ability"]


def test_the_front_holds_what_no_other_beats() -> None:
    points = [(2.0, 0.5), (1.0, 0.3), (3.0, 0.5), (1.0, 0.2), (4.0, 0.9)]
    assert figures.pareto_front(points) == [(1.0, 0.3), (2.0, 0.5), (4.0, 0.9)]


def test_a_figure_on_a_page_stays_in_its_element() -> None:
    text = figures.draw_all(make_summary(('a"id="b', "url(#x)")))["structure"]
    element = figures.inline(text, "one", "label <&>")
    root = ElementTree.fromstring(element)
    assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"] == "label <&>"
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids)) and all(name.startswith("one-") for name in ids)
    targets = [v[1:] for e in root.iter() for k, v in e.attrib.items() if k == "href"]
    targets += [name for e in root.iter() for v in e.attrib.values() for name in re.findall(r"url\(#([^)]+)\)", v)]
    assert targets and set(targets) <= set(ids)
    assert "http" not in element and not {"style", "metadata", "script"} & {e.tag for e in root.iter()}
    words = "".join(root.itertext())
    assert 'a"id="b' in words and "url(#x)" in words  # text is left as it is


def test_turns_that_few_dialogues_reach_are_left_out() -> None:
    sizes = (20, 5, 4)
    curve = {turn: Estimate(0.5, 0.4, 0.6, n) for turn, n in enumerate(sizes)}
    by_turn: figures.ByTurn = {"recall": {"first_ask": curve}}
    assert "first ask (n=5 to 20 a point)" in figures.draw_all(make_summary(), by_turn)["retention_by_turn"]


def test_colours_are_apart_for_every_method_of_a_full_run() -> None:
    assert len(set(figures.COLOURS)) == len(set(figures.MARKERS)) == len(figures.COLOURS) == 8


# -------------------------------------------------------------------------------------- terminal

LOGGED = LoggedRun("sqlite:////elsewhere/mlflow.db", "7", "abc", {}, 0)


ALL_ARMS = ("recall", "sft", "rag", "none", "full_context", "oracle_text", "oracle_vector", "random_vector")


@pytest.mark.parametrize(
    "methods", [METHODS, ("recall",), ALL_ARMS, tuple(f"a_method_with_a_long_name_{i}" for i in range(7))]
)
@pytest.mark.parametrize("same_n", [True, False])
def test_the_screen_is_100_columns_wide(tmp_path: Path, methods: tuple[str, ...], same_n: bool) -> None:
    summary = make_summary(methods)
    for cells in () if same_n else summary["methods"].values():
        for number, cell in enumerate(cells.values()):
            cell["n"] = 1000 + number * (1 + list(summary["methods"].values()).index(cells))
    text = terminal.render(Comparison(summary, tmp_path), LOGGED)
    body, _, closing = text.partition("report: ")
    assert max(cell_len(line) for line in body.splitlines()) <= 100
    assert "\x1b" not in text
    for heading in ("Retention", "Abstention", "Ledger", "Structure", "Cost"):
        assert re.search(rf"^{heading}", body, re.M)
    assert "0.94 [0.88, 0.98]" in body
    assert closing.strip().endswith("http://127.0.0.1:5000/#/experiments/7/runs/abc")


def test_every_method_and_dash_is_on_the_screen(comparison: Comparison) -> None:
    text = terminal.render(comparison)
    assert all(name in text for name in METHODS)
    assert "— (1)" in text and ") it never looks anything up" in text
    assert "H2 refuted: Recall costs what SFT costs." in text
    assert "MLflow" not in text


def test_colours_only_on_a_terminal(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    tty, pipe = Terminal(), io.StringIO()
    terminal.show(comparison, file=tty)
    terminal.show(comparison, file=pipe)
    assert "\x1b[" in tty.getvalue()
    assert "\x1b" not in pipe.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", tty.getvalue()).split() == pipe.getvalue().split()


def test_a_terminal_without_unicode_gets_plain_characters(comparison: Comparison) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    terminal.show(comparison, file=file)
    assert b"- (1)" in raw.getvalue()


def test_the_command_opens_the_store_that_was_written(tmp_path: Path) -> None:
    assert terminal.ui_command(default_store(tmp_path), tmp_path).endswith("mlflow ui --workers 1")
    elsewhere = terminal.ui_command("postgresql://me:secret@db/x", tmp_path)
    assert elsewhere.endswith("--backend-store-uri postgresql://db/x")
    server = dataclasses.replace(LOGGED, tracking_uri="https://me:secret@host/")
    assert terminal.ui_command(server.tracking_uri, tmp_path) == ""
    assert terminal.run_address(server) == "https://host/#/experiments/7/runs/abc"
