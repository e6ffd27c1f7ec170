"""Verdicts follow the rules of DESIGN section 6 and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from planted import always_right, answer, dialogues, forgets, raw_of, recall_raw, right, right_with, timed, turn

from eval.retention import accuracy
from eval.stats import Difference, resamples_for
from eval.verdict import (
    HYPOTHESES,
    Hypothesis,
    compare_pairs,
    front_only_evidence,
    judge,
    judge_all,
    step1_evidence,
)

RNG = np.random.default_rng
BY_KEY = {hypothesis.key: hypothesis for hypothesis in HYPOTHESES}


def difference(value: float, half: float, *, arm: float = 0.8, mde: float = 0.01, p: float = 0.001) -> Difference:
    return Difference(
        arm, arm - value, value, value - half, value + half, p, half / 1.96, mde, n=400, num_clusters=100
    )


def test_the_registry_is_whole() -> None:
    assert {hypothesis.id for hypothesis in HYPOTHESES} == {"H1", "H2", "H3", "H4", "H5", "H6"}
    assert len(BY_KEY) == len(HYPOTHESES)
    for hypothesis in HYPOTHESES:
        assert hypothesis.claim and hypothesis.recipe and hypothesis.metric and hypothesis.split
        assert hypothesis.margin > 0
    for ablated in ("H5", "H6"):
        assert {h.recipe for h in HYPOTHESES if h.id == ablated} == {"recall", "recall_spec"}


@pytest.mark.parametrize(
    ("key", "value", "half", "outcome"),
    [
        ("H1", 0.00, 0.02, "supported"),
        ("H1", 0.20, 0.02, "supported"),  # better than RAG is within 5 points too
        ("H1", -0.10, 0.02, "refuted"),
        ("H1", -0.05, 0.02, "not_decided"),
        ("H2", 0.02, 0.03, "supported"),
        ("H2", -0.50, 0.03, "supported"),
        ("H2", 0.30, 0.03, "refuted"),
        ("H2", 0.10, 0.03, "not_decided"),
        ("H4", -0.01, 0.005, "supported"),
        ("H4", -0.05, 0.005, "refuted"),
        ("H5", 0.01, 0.02, "supported"),
        ("H5", 0.40, 0.02, "refuted"),
        ("H6", 0.50, 0.05, "supported"),
        ("H6", 0.02, 0.05, "refuted"),
        ("H6", 0.10, 0.05, "not_decided"),
    ],
)
def test_margins(key: str, value: float, half: float, outcome: str) -> None:
    verdict = judge(BY_KEY[key], {"x": difference(value, half)})
    assert verdict.outcome == outcome, verdict.reason


def test_no_verdict_at_the_floor_or_without_the_power() -> None:
    floor = judge(BY_KEY["H1"], {"against rag": difference(0.01, 0.01, arm=0.05)})
    assert floor.outcome == "not_decided" and "both arms are at the floor" in floor.reason
    one_arm = judge(BY_KEY["H1"], {"against rag": difference(-0.75, 0.01, arm=0.05)})
    assert one_arm.outcome == "refuted"
    weak = judge(BY_KEY["H1"], {"against rag": difference(0.0, 0.02, mde=0.06)})
    assert weak.outcome == "not_decided" and "under 0.060 go unseen" in weak.reason


def test_the_highest_must_beat_every_rival() -> None:
    h3 = BY_KEY["H3"]
    ahead, behind = difference(0.1, 0.02), difference(-0.1, 0.02)
    assert judge(h3, {"sft": ahead, "rag": ahead}).outcome == "supported"
    assert judge(h3, {"sft": ahead, "rag": behind}).outcome == "refuted"
    level = difference(0.01, 0.03, p=0.5)
    assert judge(h3, {"sft": ahead, "rag": level}).outcome == "not_decided"
    # Holm over the two: 0.03 would do alone
    weak = difference(0.04, 0.038, p=0.03)
    assert judge(h3, {"sft": weak, "rag": weak}).outcome == "not_decided"
    # A rival that was not run leaves it open, unless another one refutes it already.
    assert judge(h3, {"sft": ahead}, "needs records of rag").outcome == "not_decided"
    assert judge(h3, {"sft": behind}, "needs records of rag").outcome == "refuted"


def test_nothing_measured_is_not_decided_and_says_what_is_needed() -> None:
    verdicts = judge_all([], [], RNG(0))
    assert set(verdicts) == set(BY_KEY)
    assert {verdict.outcome for verdict in verdicts.values()} == {"not_decided"}
    assert all(verdict.reason.startswith("needs ") for verdict in verdicts.values())
    assert verdicts["H4"].reason == "needs ability figures before and after the fit"
    assert verdicts["H5"].reason == "needs an ablation of recall without Step 1"
    body = verdicts["H1"].as_dict()
    assert body["verdict"] == "not decided by this data"
    assert {"claim", "recipe", "metric", "split", "margin", "reason"} <= set(body)


def test_copies_of_one_method_are_within_the_margin() -> None:
    records = [record for name in ("recall", "sft", "rag") for record in dialogues(always_right, 120, method=name)]
    costs = [timed(name, f"q{i}") for name in ("recall", "sft") for i in range(100)]
    verdicts = judge_all(records, costs, RNG(0), num_resamples=300)
    assert verdicts["H1"].outcome == verdicts["H1/uncued"].outcome == "supported"
    assert verdicts["H2"].outcome == "supported"
    assert verdicts["H3"].outcome == "not_decided"  # as good as the rivals is not the highest


def test_a_method_that_forgets_refutes() -> None:
    """Wrong at d = 4 and 8 on every clause: 40 points fewer, seen with 60 clusters."""
    records = dialogues(forgets, 120) + dialogues(always_right, 120, method="rag")
    records += dialogues(forgets, 120, method="sft")
    verdicts = judge_all(records, [], RNG(0), num_resamples=300)
    assert verdicts["H1"].outcome == "refuted"
    assert verdicts["H1"].evidence["against rag"].value == pytest.approx(-0.4)
    assert verdicts["H3"].outcome == "refuted"


def test_few_clauses_decide_nothing() -> None:
    records = dialogues(always_right, 16) + dialogues(always_right, 16, method="rag")
    assert judge_all(records, [], RNG(0), num_resamples=300)["H1"].outcome == "not_decided"


def test_only_test_questions_count() -> None:
    records = dialogues(always_right, 120) + dialogues(always_right, 120, method="rag")
    as_dev = [replace(r, qa=replace(r.qa, split="dev") if r.qa else None) for r in records]
    verdict = judge_all(as_dev, [], RNG(0), num_resamples=100)["H1"]
    assert verdict.outcome == "not_decided" and "test questions" in verdict.reason


def test_cost_verdicts() -> None:
    sft = [timed("sft", f"q{i}") for i in range(40)]
    slow = [timed("recall", f"q{i}", total_s=1.5) for i in range(40)]
    large = [timed("recall", f"q{i}", peak_bytes=1500) for i in range(40)]
    other = [timed("recall", f"q{i}", memory_kind="vram") for i in range(40)]
    assert judge_all([], sft + slow, RNG(0), num_resamples=200)["H2"].outcome == "refuted"
    assert judge_all([], sft + large, RNG(0), num_resamples=200)["H2"].outcome == "refuted"
    mixed = judge_all([], sft + other, RNG(0), num_resamples=200)["H2"]
    assert mixed.outcome == "not_decided" and "rss and vram do not compare" in mixed.reason


def test_ablations_come_in_as_evidence() -> None:
    asks = [turn(n, "first_ask", right(n)) for n in range(100)]
    stops = [turn(n, "first_ask", answer(recall_raw("t", f"{100 + n} euros", reasoning=""))) for n in range(100)]
    resamples = resamples_for(asks, RNG(0), 300)
    evidence = {
        "H5": step1_evidence(asks, 100, resamples),
        "H6": front_only_evidence(stops, asks, resamples),
        "H6/recall_spec": front_only_evidence(stops, asks, resamples),
    }
    verdicts = judge_all(asks, [], RNG(0), evidence=evidence, num_resamples=100)
    assert verdicts["H5"].outcome == "refuted"  # it still finds every clause
    assert verdicts["H6"].outcome == "supported"
    assert verdicts["H6/recall_spec"].reason.startswith("needs recall_spec to pass its gate")
    gated = judge_all(asks, [], RNG(0), evidence=evidence, gates={"recall_spec": True}, num_resamples=100)
    assert gated["H6/recall_spec"].outcome == "supported"


@pytest.mark.parametrize("copies", ["ab", "abc"])
def test_pairs_of_copies_are_rarely_different(copies: str) -> None:
    """Copies of one method, 200 seeded trials: Holm keeps alarms of any pair to 5%."""
    alarms = 0
    for seed in range(200):
        rng = RNG(seed)
        arms = {
            name: [
                turn(n, "first_ask", answer(raw_of("Hm.", f"{100 + n} euros" if rng.random() < 0.6 else "no")))
                for n in range(40)
            ]
            for name in copies
        }
        resamples = resamples_for(arms["a"], rng, 300)
        pairs = compare_pairs({name: accuracy(records) for name, records in arms.items()}, resamples)
        assert set(pairs) == set(combinations(copies, 2))
        alarms += any(pair.outcome == "different" for pair in pairs.values())
    assert alarms <= 10


def test_a_planted_gap_is_called_different() -> None:
    rng = RNG(0)
    arms = {
        "recall": dialogues(right_with(0.9, rng), 30),
        "rag": dialogues(right_with(0.5, rng), 30, method="rag"),
        "sft": dialogues(right_with(0.5, rng), 30, method="sft"),
    }
    resamples = resamples_for(arms["recall"], rng, 1000)
    pairs = compare_pairs({name: accuracy(records) for name, records in arms.items()}, resamples)
    assert pairs["recall", "rag"].outcome == pairs["recall", "sft"].outcome == "different"
    assert pairs["rag", "sft"].outcome == "no_difference_shown"
    assert pairs["recall", "rag"].p_holm >= pairs["recall", "rag"].difference.p


def test_a_hypothesis_can_be_judged_for_another_recipe() -> None:
    other: Hypothesis = replace(BY_KEY["H1"], key="H1/recall_silent", recipe="recall_silent")
    assert judge(other, {"against rag": difference(0.0, 0.01)}).as_dict()["recipe"] == "recall_silent"
