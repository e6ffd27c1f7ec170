"""The report's first sentences: decided ones first, each pair once, times the right way round."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import make_comparison

from eval.records import CostRecord
from methods.base import Usage
from reports.head import COST, HERE, LIKE_IT, METRIC, MORE_CLAUSES, head, kept
from tasks.base import QA


def pair(value: float, outcome: str, families: int | None = None) -> dict[str, Any]:
    return {
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "outcome": outcome,
        "families_needed": families,
        "p_holm": 0.01 if outcome == "different" else 0.2,
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


@pytest.mark.parametrize("families", [None, 3000])
def test_a_difference_of_nothing_asks_for_no_number_of_families(families: int | None) -> None:
    (sentence,) = kept({"a - b": pair(0.0, "no_difference_shown", families)})
    assert sentence.endswith("more than 500 further families would be needed, at this difference.")


def test_a_pair_that_only_holm_leaves_open_is_said_so() -> None:
    (sentence,) = kept({"sft - recall": pair(-0.1, "no_difference_shown", 9)})
    assert sentence.startswith("recall kept more than sft here (+0.10 [+0.05, +0.15]); among 1 pairs that is not")
    assert "about 9 more families" in sentence


def test_this_rulebook_has_clauses_left_to_ask_about() -> None:
    (sentence,) = kept({"a - b": pair(0.01, "no_difference_shown", 40)}, MORE_CLAUSES)
    assert "task.num_clauses=0" in sentence and "families" not in sentence


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
