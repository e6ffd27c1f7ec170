"""What each method was given: counts add up, and fewer steps are said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from report_fixtures import make_comparison

from methods.base import FitReport
from reports.given import few_steps, given


def test_counts_are_means_over_the_fits(tmp_path: Path) -> None:
    fits = {
        "recall": [FitReport(1.0, 100, 10, samples={"a": 3, "b": 1}), FitReport(1.0, 300, 30, samples={"a": 5})],
        "sft": FitReport(1.0, 200, 20, samples={"c": 2}),
    }
    frame = given(dataclasses.replace(make_comparison(tmp_path), fits=fits))
    assert list(frame.columns) == ["recall", "sft"]
    assert frame.loc["a"].tolist() == ["4", "—"]
    assert frame.loc["c"].tolist() == ["—", "2"]
    assert frame.loc["tokens"].tolist() == ["200", "200"]
    assert frame.loc["samples in all"].tolist() == ["4", "2"]
    assert frame.loc["optimiser steps"].tolist() == ["20", "20"]


def test_fewer_steps_are_said(tmp_path: Path) -> None:
    comparison = make_comparison(tmp_path)
    assert few_steps(comparison) == []
    fits = {
        "rag": FitReport(1.0, 100, 400),
        "full_context": FitReport(1.0, 100, 90),
        "sft": FitReport(1.0, 1, 390),
    }
    (sentence,) = few_steps(dataclasses.replace(comparison, fits=fits))
    assert sentence.startswith("full_context had 90 optimiser steps where rag had 400")


def test_a_run_without_fits_has_no_table(tmp_path: Path) -> None:
    bare = dataclasses.replace(make_comparison(tmp_path), fits={})
    assert given(bare).columns.empty and few_steps(bare) == []
