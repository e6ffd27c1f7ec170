"""summary.json: its keys, its shape, and planted numbers all the way through."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from planted import USAGE, always_right, answer, dialogues, forgets, never_closes, plain, right_with, timed, wrong

from eval.records import RecordError, TurnRecord
from eval.stats import Estimate, missing
from eval.summary import accuracy_by_turn, comparisons, summarise
from eval.verdict import judge_all
from methods.base import Answer, FitReport
from tasks.base import TurnKind

REQUIRED = {
    "retention": "accuracy first_ask_cued first_ask_uncued d0 d1 d2 d4 d8 consistency",
    "abstention": "precision recall",
    "ledger": "trigger hit_at_1 verbatim false_recall",
    "cost": "ttft_p50_s ttfa_p50_s tpot_p50_s latency_p50_s latency_p95_s prompt_tokens new_tokens peak_vram_bytes"
    " peak_rss_bytes fit_s fit_tokens",
    "structure": "well_formed stopped_after_recall correct_and_well_formed",
    "lifecycle": "write_s stale_rate",
}


def turns() -> list[TurnRecord]:
    return dialogues(always_right) + dialogues(forgets, method="rag") + dialogues(never_closes, method="sft")


def test_shape_and_names() -> None:
    costs = [timed(name, f"q{i}", r) for name in ("recall", "rag", "sft") for i in range(5) for r in range(2)]
    fit = {"recall": FitReport(10.0, 1000, 5), "rag": FitReport(5.0, 1000, 5)}
    verdicts = judge_all(turns(), costs)
    summary = summarise(turns(), costs, fit, task="regs", preset="smoke", wall_s=3.5, verdicts=verdicts)
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert again == summary
    assert set(summary) == {"task", "preset", "seed", "seeds", "wall_s", "methods", "verdicts"}
    assert (summary["task"], summary["preset"], summary["seed"], summary["wall_s"]) == ("regs", "smoke", 0, 3.5)
    assert list(summary["methods"]) == ["recall", "rag", "sft"]
    assert {"H1", "H2", "H3", "H4", "H5", "H6"} <= set(summary["verdicts"])
    names = set(summary["methods"]["recall"])
    for metrics in summary["methods"].values():
        assert set(metrics) == names
        assert {f"{group}/{name}" for group, listed in REQUIRED.items() for name in listed.split()} <= names
        for name, cell in metrics.items():
            if cell["value"] is None:
                assert set(cell) == {"value", "reason"} and cell["reason"], name
            else:
                assert set(cell) == {"value", "low", "high", "n"} and cell["n"] > 0, name
                if cell["low"] is not None:
                    assert cell["low"] <= cell["value"] <= cell["high"], name


def test_planted_numbers_come_through() -> None:
    methods = summarise(turns(), [], {})["methods"]
    assert methods["recall"]["retention/accuracy"]["value"] == 1.0
    assert methods["rag"]["retention/d2"]["value"] == 1.0
    assert methods["rag"]["retention/d4"]["value"] == 0.0
    assert methods["rag"]["retention/ratio_d2"]["value"] == 1.0
    assert methods["rag"]["retention/ratio_d8"]["value"] == 0.0
    assert methods["rag"]["retention/first_ask"]["value"] == 0.6
    assert methods["sft"]["retention/accuracy"]["value"] == 0.0
    assert methods["sft"]["structure/well_formed"]["value"] == 0.0
    assert methods["sft"]["retention/ratio_d1"]["reason"] == "nothing is right at distance 0"
    assert methods["sft"]["ledger/trigger"]["reason"] == "it never looks anything up"
    assert methods["sft"]["cost/latency_p50_s"]["reason"] == "no timed answer"
    assert methods["sft"]["ability/after"]["reason"] == "the ability pass was not run"


def test_the_interval_holds_the_planted_share() -> None:
    rng = np.random.default_rng(1)
    records = dialogues(right_with(0.7, rng), 40)
    cell = summarise(records, [], {})["methods"]["recall"]["retention/first_ask"]
    assert cell["low"] <= 0.7 <= cell["high"] and cell["n"] == 200


def test_several_seeds_are_pooled() -> None:
    records = [r for seed in (3, 1, 2) for r in dialogues(always_right, 6, seed=seed)]
    fit = {"recall": [FitReport(10.0, 100, 5), FitReport(20.0, 100, 5), FitReport(30.0, 100, 5)]}
    summary = summarise(records, [], fit)
    assert summary["seeds"] == [1, 2, 3]
    assert summary["methods"]["recall"]["retention/accuracy"]["n"] == 6 * 5 * 3 * 3
    fit_s = summary["methods"]["recall"]["cost/fit_s"]
    assert (fit_s["value"], fit_s["n"]) == (20.0, 3)
    assert fit_s["low"] < 10.0 and fit_s["high"] > 30.0  # three seeds say little about a fourth


def test_other_passes_replace_what_was_not_run() -> None:
    extra = {"recall": {"lifecycle/write_s": Estimate(1.5, 1.0, 2.0, 8)}}
    summary = summarise(dialogues(always_right, 4), [], {}, extra=extra)
    cell = summary["methods"]["recall"]["lifecycle/write_s"]
    assert cell == {"value": 1.5, "low": 1.0, "high": 2.0, "n": 8}


def test_nothing_is_an_empty_summary() -> None:
    summary = summarise([], [], {})
    assert summary["methods"] == {} and summary["seed"] is None


def test_broken_records_are_named() -> None:
    records = dialogues(always_right, 2)
    with pytest.raises(RecordError, match=r"recall/0/c0/0/0 occurs twice"):
        summarise([*records, records[0]], [], {})
    with pytest.raises(RecordError, match=r"'sft' has timings but no turns"):
        summarise(records, [timed("sft", "q1")], {})


def test_accuracy_by_turn() -> None:
    records = dialogues(forgets, 4)
    found = accuracy_by_turn(records)
    first_asks = {turn: cell.value for turn, cell in found["first_ask"].items()}
    assert list(first_asks.items()) == [(0, 1.0), (1, 1.0), (2, 1.0), (4, 0.0), (8, 0.0)]
    assert all(cell.value == 1.0 for cell in found["unanswerable"].values())


def test_comparisons_are_ready_for_json() -> None:
    found = comparisons(turns())
    pair = json.loads(json.dumps(found, allow_nan=False))["retention/accuracy"]["recall - sft"]
    assert pair["value"] == 1.0 and pair["outcome"] == "different"
    assert {"low", "high", "p", "p_holm", "mde", "n", "num_clusters"} <= set(pair)


def test_what_none_already_answers_is_reported_apart() -> None:
    """The control arm is right on even clauses (and abstains rightly); the method is right on every third."""

    def even(number: int, kind: TurnKind, d: int) -> Answer:
        return always_right(number, kind, d) if number % 2 == 0 else plain_or_wrong(number, kind)

    def third(number: int, kind: TurnKind, d: int) -> Answer:
        return always_right(number, kind, d) if number % 3 == 0 else plain_or_wrong(number, kind)

    def plain_or_wrong(number: int, kind: TurnKind) -> Answer:
        return wrong(number) if kind in ("first_ask", "re_ask") else plain(number, kind)

    records = dialogues(third, 12) + dialogues(even, 12, method="none")
    methods = summarise(records, [], {})["methods"]
    cell = methods["recall"]["retention/accuracy_unknown_to_none"]
    assert (cell["value"], cell["n"]) == (2 / 6, 6 * 5 * 2)  # clauses 3 and 9 of the six odd ones
    assert methods["recall"]["retention/first_ask_unknown_to_none"]["n"] == 6 * 5
    known = methods["recall"]["retention/accuracy_known_to_none"]  # the even clauses, and all abstentions
    assert (known["value"], known["n"]) == ((2 * 10 + 12 * 5) / 120, 6 * 10 + 12 * 5)  # clauses 0 and 6
    known = methods["recall"]["retention/first_ask_known_to_none"]
    assert (known["value"], known["n"]) == (2 / 6, 6 * 5)
    assert methods["none"]["retention/accuracy_unknown_to_none"]["value"] == 0.0
    alone = summarise(dialogues(third, 12), [], {})["methods"]["recall"]
    for key in ("retention/accuracy_unknown_to_none", "retention/accuracy_known_to_none"):
        assert alone[key]["reason"] == "the control arm none was not run"


def test_every_method_has_every_metric() -> None:
    extra = {"recall": {"lifecycle/hit_at_1_plus10": Estimate(0.5, 0.1, 0.9, 8)}}
    records = dialogues(always_right, 4) + dialogues(always_right, 4, method="sft")
    methods = summarise(records, [], {}, extra=extra)["methods"]
    assert methods["sft"]["lifecycle/hit_at_1_plus10"] == {
        "value": None,
        "reason": "the lifecycle pass was not run",
    }


def test_growth_that_a_refit_would_have_to_make_says_so_at_every_size() -> None:
    why = "its memories are changed by a refit, and one for every size is not made"
    extra = {
        "recall": {"lifecycle/hit_at_1_plus10": Estimate(0.5, 0.1, 0.9, 8)},
        "sft": {"lifecycle/growth_hit_change": missing(why)},
    }
    records = dialogues(always_right, 4) + dialogues(always_right, 4, method="sft")
    methods = summarise(records, [], {}, extra=extra)["methods"]
    assert methods["sft"]["lifecycle/hit_at_1_plus10"] == {"value": None, "reason": why}


def test_cued_and_uncued_are_apart() -> None:
    """By hand: clauses 0 and 2 are cued, 1 and 3 are not; the method finds clauses 0, 2 and 3, and forgets 0.

    A first ask and a re-ask at each of five distances a clause, so 10 answers a clause.
    """

    def answers(number: int, kind: TurnKind, d: int) -> Answer:
        if kind not in ("first_ask", "re_ask") or number == 2:
            return always_right(number, kind, d)
        if number == 3:  # its clause, word for word, and the sibling's value
            found = always_right(number, kind, d)
            return answer(found.raw.replace("103 euros.", "503 euros."), found.lookups)
        if number == 0:
            return forgets(number, kind, d)  # right up to d = 2
        return plain(number, "unanswerable")  # clause 1: no lookup, and it abstains

    cells = summarise(dialogues(answers, 4), [], {})["methods"]["recall"]
    wanted = {
        "retention/d2": (2 / 2, 2, 0 / 2, 2),
        "retention/d4": (1 / 2, 2, 0 / 2, 2),
        "retention/re_ask": (8 / 10, 10, 0 / 10, 10),
        "ledger/trigger": (20 / 20, 20, 10 / 20, 20),
        "ledger/hit_at_1": (16 / 20, 20, 10 / 10, 10),
        "ledger/verbatim": (16 / 16, 16, 10 / 10, 10),
        "ledger/correct_given_verbatim": (16 / 16, 16, 0 / 10, 10),
        "ledger/gold": (16 / 20, 20, 10 / 20, 20),
        "ledger/used": (16 / 16, 16, 0 / 10, 10),
    }
    for key, (cued, num_cued, uncued, num_uncued) in wanted.items():
        assert (cells[f"{key}_cued"]["value"], cells[f"{key}_cued"]["n"]) == (cued, num_cued), key
        assert (cells[f"{key}_uncued"]["value"], cells[f"{key}_uncued"]["n"]) == (uncued, num_uncued), key
    assert cells["retention/near_miss_uncued"]["reason"] == "no near_miss turn (uncued clauses)"


def test_cued_and_uncued_need_to_be_told() -> None:
    records = dialogues(always_right, 2)
    records[1] = replace(records[1], cued=None)
    with pytest.raises(RecordError, match=r"recall/0/c0/0/1: does not say whether its clause is cued"):
        summarise(records, [], {})


def test_cut_histories_and_dropped_passages_are_counted() -> None:
    records = dialogues(always_right, 4)  # 80 answers
    cells = summarise(records, [], {})["methods"]["recall"]
    assert (cells["retention/history_cut"]["value"], cells["retention/history_cut"]["n"]) == (0.0, 80)
    assert cells["retention/passages_dropped"]["value"] is None

    def with_usage(number: int, record: TurnRecord) -> TurnRecord:
        usage = replace(USAGE, truncated_turns=2 * (number % 4 == 0), dropped_passages=number % 2)
        return replace(record, answer=replace(record.answer, usage=usage))

    records = [with_usage(number, record) for number, record in enumerate(records)]
    cells = summarise(records, [], {})["methods"]["recall"]
    assert (cells["retention/history_cut"]["value"], cells["retention/history_cut"]["n"]) == (0.25, 80)
    assert (cells["retention/passages_dropped"]["value"], cells["retention/passages_dropped"]["n"]) == (0.5, 80)
