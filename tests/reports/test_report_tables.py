"""Tables: cells, dashes with their reasons, CSV that reads back."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_fixtures import METHODS, ODD, make_summary, make_turns

from eval.stats import Estimate
from eval.summary import summarise
from reports import tables
from reports.base import Comparison, ReportError, estimate, metric_keys, read_summary
from reports.metric_names import GROUPS, ROWS
from reports.text import md


def test_a_cell_holds_value_interval_and_n() -> None:
    assert tables.format_cell(Estimate(0.94, 0.88, 0.98, 64)) == "0.94 [0.88, 0.98] n=64"
    assert tables.format_cell(Estimate(0.94, 0.88, 0.98, 64), with_n=False) == "0.94 [0.88, 0.98]"
    assert tables.format_cell(Estimate(617.2, n=1), "s") == "617 n=1"
    assert tables.format_cell(Estimate(None, reason="no turn")) == "—"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.005, "share", "0.01"),
        (-0.001, "share", "0.00"),
        (1.0, "share", "1.00"),
        (0.0834, "ms", "83.4"),
        (9.996, "s", "10.0"),
        (99.96, "s", "100"),
        (0.00002, "s", "0.00002"),
        (0, "s", "0"),
        (1234.4, "s", "1234"),
        (9_999.4, "tokens", "9999"),
        (37_120, "tokens", "37.1k"),
        (999_800, "tokens", "1.00M"),
        (1_900_000_000, "bytes", "1812"),
    ],
)
def test_numbers_are_short_and_never_exponents(value: float, unit: tables.Unit, text: str) -> None:
    assert tables.format_number(value, unit) == text


def test_every_dash_has_its_reason() -> None:
    table = tables.comparison(make_summary())
    assert table.frame.loc["hit@1", "sft"] == "— (2)"
    assert table.notes[1] == "it never looks anything up"
    assert table.frame.loc["false recall", "sft"] == "— (1)"
    assert table.notes[0] == "not measured in this run"
    text = tables.to_markdown(table)
    assert "- (2) it never looks anything up" in text


def test_n_has_a_column_where_shared_and_stands_in_the_cell_where_not() -> None:
    summary = make_summary()
    summary["methods"]["rag"]["retention/accuracy"]["n"] = 63
    frame = tables.comparison(summary).frame
    assert frame.loc["first ask, cued", "n"] == "64"
    assert frame.loc["all scored turns", "n"] == ""
    assert frame.loc["all scored turns", "rag"].endswith("n=63")


def test_not_a_number_is_missing_not_a_figure() -> None:
    summary = make_summary()
    summary["methods"]["rag"]["retention/accuracy"] = {"value": math.nan, "n": 3}
    assert estimate(summary, "rag", "retention/accuracy").value is None


def test_the_other_kind_of_peak_memory_is_no_dash() -> None:
    keys = [row.key for row in tables.comparison(make_summary()).rows]
    assert "cost/peak_rss_bytes" in keys
    assert "cost/peak_vram_bytes" not in keys


def test_distances_are_in_order_and_apart_by_kind() -> None:
    assert [row.label for *_, row in tables.distances(make_summary())] == [
        *(f"d={d}" for d in (0, 1, 2, 4, 8)),
        "d=4 / d=0",
        "re-ask, d=1",
    ]


def test_an_unknown_metric_is_shown_under_its_key_in_its_unit() -> None:
    summary = make_summary()
    summary["methods"]["rag"]["cost/stage_rerank_s"] = {"value": 0.5, "n": 4}
    table = tables.group(summary, "cost")
    assert table.frame.loc["stage rerank s", "rag"] == "0.500"
    assert table.rows[-1].unit == "s"


def test_the_rows_are_those_of_the_summary() -> None:
    """Every metric that eval computes is in some table, and no row names one that it does not compute."""
    summary = summarise(make_turns(), (), {})
    keys = set(metric_keys(summary))
    assert {row.key for row in ROWS} - keys == set()
    shown = {row.key for name in GROUPS for row in tables.group_rows(summary, name)}
    shown |= {row.key for *_, row in tables.distances(summary)}
    shown |= {row.key for row in tables.split_rows(summary)}
    assert keys - shown - {"cost/peak_rss_bytes"} == set()
    by_distance = {row.key for *_, row in tables.distances(summary)}
    by_distance |= {row.key for row in tables.split_rows(summary)}
    assert keys - by_distance <= {row.key for row in ROWS}, "give it a row in reports/metric_names.py"


def test_cued_and_uncued_stand_below_each_other() -> None:
    """The two splits of a metric are neighbours; none stands in the tables of its group a second time."""
    summary = summarise(make_turns(), (), {})
    table = tables.cued_apart(summary)
    pairs = list(zip(table.rows[::2], table.rows[1::2], strict=True))
    assert [(a.key.removesuffix("_cued"), a.label.removesuffix(", cued")) for a, _ in pairs] == [
        (b.key.removesuffix("_uncued"), b.label.removesuffix(", uncued")) for _, b in pairs
    ]
    assert [a.label for a, _ in pairs][:3] == ["first ask, cued", "first ask, d=0, cued", "first ask, d=1, cued"]
    assert {"hit@1, uncued", "re-asks, cued", "right, given verbatim, uncued"} <= set(table.frame.index)
    elsewhere = {row.key for name in GROUPS for row in tables.group_rows(summary, name)}
    assert elsewhere & {row.key for row in table.rows} == {
        "retention/first_ask_cued",
        "retention/first_ask_uncued",
    }


def test_labels_leave_room_for_three_methods() -> None:
    assert all(len(row.label) <= 24 for row in ROWS)
    assert len({row.label for row in ROWS}) == len(ROWS)


def test_odd_method_names_and_reasons_keep_the_table_whole() -> None:
    summary = make_summary((ODD, "sft"))
    summary["methods"][ODD]["retention/accuracy"] = {"value": None, "reason": ODD}
    text = tables.to_markdown(tables.comparison(summary), notes=False)
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert md(ODD) in text


def test_csv_reads_back(tmp_path: Path) -> None:
    summary = make_summary((*METHODS, ODD))
    paths = tables.write_csv(summary, tmp_path)
    assert {path.name for path in paths} >= {
        "metrics.csv",
        "comparison.csv",
        "retention_by_distance.csv",
        "cost.csv",
    }
    back = pd.read_csv(tmp_path / "metrics.csv", keep_default_na=False, na_values={"value": [""]})
    frame = tables.metrics_frame(summary)
    assert list(back["method"]) == list(frame["method"])
    np.testing.assert_array_equal(back["value"].to_numpy(float), frame["value"].to_numpy(float))
    table = tables.comparison(summary)
    shown = pd.read_csv(tmp_path / "comparison.csv", index_col=0, keep_default_na=False, dtype=str)
    assert shown.to_numpy().tolist() == table.frame.to_numpy().tolist()
    assert list(shown.columns) == list(table.frame.columns)


def test_a_folder_without_a_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"summary\.json: no such file"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ReportError, match="not valid JSON"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ReportError, match="no table of methods"):
        read_summary(tmp_path)


def test_a_comparison_knows_its_methods(comparison: Comparison) -> None:
    assert comparison.methods == METHODS


# ----------------------------------------------------------------------------- LaTeX, break-even


def test_latex_tables_hold_the_same_cells(tmp_path: Path) -> None:
    summary = make_summary(("recall", "a_b & 50% $x$ {~^\\}", "\u202eשלום 🦊"))
    paths = tables.write_latex(summary, tmp_path)
    written = {path.stem for path in tables.write_csv(summary, tmp_path)} - {"metrics"}
    assert {path.stem for path in paths} == written >= {"comparison", "cost", "break_even"}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        columns = text.partition("tabular}{")[2].partition("}")[0]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}, path
        bare = re.sub(r"\\[&%$#_{}]|[{}]|^% .*$", "", text, flags=re.M)
        assert not set("$%#_~^") & set(bare.replace("~ ", "").replace("~\n", "")), path
        assert all(ord(char) < 0x180 for char in text)
    text = (tmp_path / "comparison.tex").read_text(encoding="utf-8")
    assert r"a\_b \& 50\% \$x\$ \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}" in text
    assert "[U+1F98A]" in text
    text = (tmp_path / "cost.tex").read_text(encoding="utf-8")
    assert "--- (1)" in text and r"\footnotesize (1) 24 timings; a p95 needs 60" in text
    frame = pd.DataFrame([["x"], ["y"]], index=pd.Index(["[a", "*b"], name="m"), columns=["c"])
    assert "{}[a & x" in tables.to_latex(frame) and "{}*b & y" in tables.to_latex(frame)


def with_costs(**methods: tuple[float | None, float, float]) -> dict[str, Any]:
    """Methods with (fit s, mean latency s, share right)."""
    keys = ("cost/fit_s", "cost/latency_mean_s", "cost/accuracy")
    cells = {
        name: {key: {"value": value, "reason": "not fitted"} for key, value in zip(keys, values, strict=True)}
        for name, values in methods.items()
    }
    return {"task": "regs", "methods": cells}


def test_break_even_by_hand() -> None:
    """(100/k + 1)/0.5 = (10/k + 2)/0.5 at k = 90; (100/k + 1)/0.5 = (10/k + 2)/1 nowhere: 190/k = 0 is none."""
    (found,) = tables.break_evens(with_costs(a=(100, 1, 0.5), b=(10, 2, 0.5)))
    assert (found.first, found.then, found.questions) == ("b", "a", pytest.approx(90))
    assert found.cells == ("a, b", "b", "90 questions", "a")
    (found,) = tables.break_evens(with_costs(a=(100, 1, 0.5), b=(10, 2, 1.0)))
    assert (found.first, found.then, found.questions) == ("b", "b", None)
    assert found.cells[1:] == ("b", "— (at every number of questions)", "b")


def test_no_break_even_below_one_question() -> None:
    """(1.5/k + 1) = (1/k + 2) at k = 0.5: from the first question on a is cheaper."""
    (found,) = tables.break_evens(with_costs(a=(1.5, 1, 1.0), b=(1, 2, 1.0)))
    assert (found.first, found.then, found.questions) == ("a", "a", None)


def test_no_break_even_says_why() -> None:
    first, second, third = tables.break_evens(with_costs(a=(1, 1, 1.0), b=(1, 1, 0.0), c=(None, 1, 1.0)))
    assert first.cells == ("a, b", "—", "— (b: no right answer)", "—")
    assert second.reason == "c: not fitted" and third.reason == "b: no right answer"
    assert tables.break_evens({"task": "regs", "methods": {"a": {}, "b": {}}}) == []
