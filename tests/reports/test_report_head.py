"""The report's first sentences: decided ones first, each pair once, times the right way round."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from report_fixtures import make_comparison

from eval.records import CostRecord
from methods.base import Usage
from reports.head import COST, HERE, LIKE_IT, METRIC, head, kept
from tasks.base import QA


def pair(value: float, outcome: str, families: int | None = None) -> dict[str, Any]:
    return {
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "outcome": outcome,
        "families_needed": families,
    }


def test_decided_pairs_come_first_and_name_the_winner() -> None:
    pairs = {
        "recall - rag": pair(0.02, "no_difference_shown", 12),
        "recall - sft": pair(0.2, "different"),
        "sft - rag": pair(-0.18, "different"),
    }
    assert kept(pairs) == [
        "recall and rag keep more than sft (right answers +0.20 [+0.15, +0.25] and +0.18 [+0.13, +0.23]).",
        "recall and rag are not told apart (+0.02 [-0.03, +0.07]); "
        "about 12 more families would, at this difference.",
    ]


def test_a_difference_of_nothing_asks_for_no_more_data() -> None:
    (sentence,) = kept({"a - b": pair(0.0, "no_difference_shown", None)})
    assert sentence.endswith("no number of further families would, at this difference.")


def timed(method: str, seconds: float) -> list[CostRecord]:
    qa = QA("q", "How much?", "40 euros", ("c",))
    return [
        CostRecord(
            method, 0, f"q{i}", 0, Usage(10, 10, total_s=seconds + i / 100), 1, "rss", qa=qa, final="40 euros",
            cluster=f"family {i}",
        )
        for i in range(8)
    ]  # fmt: skip


def test_the_quicker_method_is_named_with_its_share_of_the_time(tmp_path: Path) -> None:
    comparison = make_comparison(tmp_path)
    costs = [*timed("recall", 4.0), *timed("sft", 2.0)]
    found = head(dataclasses.replace(comparison, costs=costs, config={"run_methods": ["recall", "sft"]}))
    (sentence,) = found[COST]
    assert sentence.startswith("sft answers in 0.50 [") and "of recall's time (8 questions" in sentence


def test_headings_without_sentences_are_left_out(tmp_path: Path) -> None:
    comparison = dataclasses.replace(make_comparison(tmp_path), costs=[])
    assert head(comparison) == {}
    about = {METRIC: {"a - b": pair(0.3, "different")}}
    assert list(head(dataclasses.replace(comparison, pairs=about))) == [LIKE_IT]
    assert list(head(dataclasses.replace(comparison, pairs=about, pairs_here=about))) == [HERE, LIKE_IT]
