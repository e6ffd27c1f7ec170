"""Verdicts follow the rules of DESIGN section 6 and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from planted import (
    always_right,
    answer,
    dialogues,
    forgets,
    question,
    raw_of,
    recall_raw,
    right_with,
    timed,
    turn,
)

from eval.records import CostRecord, TurnRecord
from eval.retention import accuracy
from eval.stats import Difference, paired_difference
from eval.verdict import (
    HYPOTHESES,
    Hypothesis,
    Verdict,
    compare_pairs,
    judge,
    judge_ablation,
    judge_all,
    step1_evidence,
)
from methods.base import Answer, Lookup
from tasks.base import QA

RNG = np.random.default_rng
BY_KEY = {hypothesis.key: hypothesis for hypothesis in HYPOTHESES}


def difference(value: float, half: float, *, arm: float = 0.8, mde: float = 0.01, p: float = 0.001) -> Difference:
    se, df = half / 1.96, 99.0
    return Difference(arm, arm - value, value, value - half, value + half, p, se, df, mde, n=400, num_clusters=100)


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
        ("H4", -0.08, 0.005, "refuted"),
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


def test_no_verdict_at_the_floor() -> None:
    floor = judge(BY_KEY["H1"], {"against rag": difference(0.01, 0.01, arm=0.05)})
    assert floor.outcome == "not_decided" and "both arms are at the floor" in floor.reason
    one_arm = judge(BY_KEY["H1"], {"against rag": difference(-0.75, 0.01, arm=0.05)})
    assert one_arm.outcome == "refuted"


@pytest.mark.parametrize(
    ("key", "value", "half", "outcome"),
    [
        ("H1", 0.10, 0.059, "supported"),  # all of [+0.041, +0.159] is above -0.05
        ("H1", -0.20, 0.10, "refuted"),
        ("H1", 0.90, 0.15, "supported"),
        ("H1", -0.90, 0.88, "not_decided"),  # the interval reaches above the bound
        ("H2", -0.90, 0.05, "supported"),
        ("H2", 0.40, 0.25, "refuted"),
        ("H3", 0.60, 0.20, "supported"),
        ("H5", 0.00, 0.04, "supported"),
        ("H6", 0.00, 0.05, "refuted"),
    ],
)
def test_the_interval_decides_however_large_an_effect_would_go_unseen(
    key: str, value: float, half: float, outcome: str
) -> None:
    """The smallest visible effect is far above every margin here: it is advice, never a veto."""
    verdict = judge(BY_KEY[key], {"x": difference(value, half, mde=0.30)})
    assert verdict.outcome == outcome, verdict.reason


def test_an_open_verdict_says_how_much_more_data_it_takes() -> None:
    reason = judge(BY_KEY["H1"], {"against rag": difference(0.0, 0.07, mde=0.1)}).reason
    # (1.984 + 0.845) * 0.07 / 1.96 over a gap of 0.05: 4.08 times the 100 families
    assert "neither side of -0.05 is shown" in reason and "effects under 0.100 go unseen here" in reason
    assert "303 more families would decide" in reason
    on_the_bound = judge(BY_KEY["H1"], {"against rag": difference(-0.05, 0.07)}).reason
    assert "never decided" in on_the_bound


def test_copies_are_rarely_refuted() -> None:
    """Two copies on data too coarse for the margin, 200 seeded trials: refuted in at most 5% of them."""
    refuted = 0
    for seed in range(200):
        rng = RNG(seed)
        arms = [dialogues(right_with(0.5, rng), 12, method=name) for name in ("recall", "rag")]
        found = paired_difference(*(accuracy(records) for records in arms))
        assert found.mde > 0.05
        refuted += judge(BY_KEY["H1"], {"against rag": found}).outcome == "refuted"
        refuted += judge(BY_KEY["H3"], {"rag": found}).outcome == "refuted"
    assert refuted <= 10


def test_the_highest_must_beat_every_rival() -> None:
    h3 = BY_KEY["H3"]
    ahead, behind = difference(0.1, 0.02), difference(-0.1, 0.02)
    assert judge(h3, {"sft": ahead, "rag": ahead}).outcome == "supported"
    assert judge(h3, {"sft": ahead, "rag": behind}).outcome == "refuted"
    level = difference(0.01, 0.03, p=0.5)
    assert judge(h3, {"sft": ahead, "rag": level}).outcome == "not_decided"
    # Each at its own 5% to support; over the two, by Holm, to refute.
    weak, weakly_behind = difference(0.04, 0.038, p=0.03), difference(-0.04, 0.038, p=0.03)
    assert judge(h3, {"sft": weak, "rag": weak}).outcome == "supported"
    assert judge(h3, {"sft": weak, "rag": weakly_behind}).outcome == "not_decided"
    assert judge(h3, {"sft": ahead, "rag": weakly_behind}).outcome == "refuted"
    # A rival that was not run leaves it open, unless another one refutes it already.
    assert judge(h3, {"sft": ahead}, "needs records of rag").outcome == "not_decided"
    assert judge(h3, {"sft": behind}, "needs records of rag").outcome == "refuted"


def test_nothing_measured_is_not_decided_and_says_what_is_needed() -> None:
    verdicts = judge_all([], [])
    assert set(verdicts) == set(BY_KEY)
    assert {verdict.outcome for verdict in verdicts.values()} == {"not_decided"}
    assert all(verdict.reason.startswith("needs ") for verdict in verdicts.values())
    assert verdicts["H4"].reason == "needs ability figures before and after the fit"
    assert verdicts["H5"].reason == "needs python -m pipelines.ablate rows=recall/no_step1"
    body = verdicts["H1"].as_dict()
    assert body["verdict"] == "not decided by this data"
    assert {"claim", "recipe", "metric", "split", "margin", "reason"} <= set(body)


def test_copies_of_one_method_are_within_the_margin() -> None:
    records = [record for name in ("recall", "sft", "rag") for record in dialogues(always_right, 160, method=name)]
    verdicts = judge_all(records, SFT + [replace(record, method="recall") for record in SFT])
    assert verdicts["H1"].outcome == verdicts["H1/uncued"].outcome == "supported"
    assert verdicts["H2"].outcome == "supported"
    assert verdicts["H3"].outcome == "not_decided"  # as good as the rivals is not the highest


def test_a_method_that_forgets_refutes() -> None:
    """Wrong at d = 4 and 8 on every clause: 40 points fewer, seen with 60 clusters."""
    records = dialogues(forgets, 120) + dialogues(always_right, 120, method="rag")
    records += dialogues(forgets, 120, method="sft")
    verdicts = judge_all(records, [])
    assert verdicts["H1"].outcome == "refuted"
    assert verdicts["H1"].evidence["against rag"].value == pytest.approx(-0.4)
    assert verdicts["H3"].outcome == "refuted"


def test_few_clauses_decide_nothing() -> None:
    records = dialogues(always_right, 16) + dialogues(always_right, 16, method="rag")
    assert judge_all(records, [])["H1"].outcome == "not_decided"


def test_only_test_questions_count() -> None:
    records = dialogues(always_right, 120) + dialogues(always_right, 120, method="rag")
    as_dev = [replace(r, qa=replace(r.qa, split="dev") if r.qa else None) for r in records]
    verdict = judge_all(as_dev, [])["H1"]
    assert verdict.outcome == "not_decided" and "test questions" in verdict.reason


MIB = 2**20


def arm(
    method: str, *peaks: int, total_s: float = 1.0, kind: str = "rss", final: str | None = None
) -> list[CostRecord]:
    """40 questions whose seconds differ by question, not by arm; peaks in MiB."""
    records = [
        timed(method, f"q{i}", total_s=total_s * (1 + i / 40), memory_kind=kind, final=final) for i in range(40)
    ]
    measured = tuple(peak * MIB for peak in peaks)
    return [replace(record, peak_bytes=max(measured), peaks_bytes=measured) for record in records]


def h2(*records: list[CostRecord]) -> Verdict:
    return judge_all([], [record for of_arm in records for record in of_arm])["H2"]


SFT = arm("sft", 990, 1000, 1010)


def test_cost_verdicts() -> None:
    assert h2(SFT, arm("recall", 1000, 1010, 1020)).outcome == "supported"
    assert h2(SFT, arm("recall", 990, 1000, 1010, total_s=1.5)).outcome == "refuted"
    assert h2(SFT, arm("recall", 1490, 1500, 1510)).outcome == "refuted"
    mixed = h2(SFT, arm("recall", 1000, 1010, 1020, kind="vram"))
    assert mixed.outcome == "not_decided" and "rss and vram do not compare" in mixed.reason


def test_latency_needs_questions_that_both_answer() -> None:
    says_no = arm("sft", 990, 1000, 1010, total_s=0.1, final="The handbook does not say.")
    quick = h2(says_no, arm("recall", 990, 1000, 1010))
    assert quick.outcome == "not_decided" and "needs timed questions that both arms answer" in quick.reason


def test_memory_rests_on_its_measurements_not_on_timings() -> None:
    """However many timings carry a copy of it, one measurement has no spread and decides nothing."""
    once = h2(arm("sft", 1000), arm("recall", 3000))
    assert once.outcome == "not_decided" and "peak memory was measured once" in once.reason
    found = h2(SFT, arm("recall", 1000, 1010, 1020)).evidence["memory"]
    assert found.n == 3 and found.low < found.value < found.high and found.se > 0
    scattered = h2(arm("sft", 700, 1000, 1300), arm("recall", 700, 1000, 1300))
    assert scattered.outcome == "not_decided"


# H5 and H6, on an ablation's records planted so that they must come out.


def recalls(row: str, hits: float, stops: float, num_clauses: int = 60) -> list[TurnRecord]:
    """One ask a clause; of the recalls the share `hits` is right and the share `stops` ends there."""
    records = []
    for number in range(num_clauses):
        gold, other = f"c{number}", f"c{number + 1}"
        found = gold if number < hits * num_clauses else other
        rest = "" if number < stops * num_clauses else "\nThe rule says so.\n</think>\nfive"
        raw = f"<think>\n<recall><|memory_pad|>TEXT</recall>{rest}"
        lookup = Lookup(found, 0.9, "TEXT", ((found, 0.9), ("c0", 0.1)))
        said = answer(raw, (lookup,))
        qa = QA(f"q{number}", f"What is {number}?", "five", (gold,), split="dev")
        records.append(
            TurnRecord(
                method=row,
                seed=0,
                dialogue_id=f"clause/{gold}",
                turn=0,
                kind="first_ask",
                distance=0,
                question=qa.question,
                qa=qa,
                cluster=gold,
                cued=True,
                answer=said,
                memory_text="TEXT",
            )
        )
    return records


def verdicts_of(groups: dict[str, list[TurnRecord]], gated: bool = True) -> dict[str, str]:
    found = judge_ablation(groups, 60, ("recall_spec",) if gated else ())
    return {key: verdict.outcome for key, verdict in found.items()}


@pytest.mark.parametrize("recipe", ["recall", "recall_spec"])
def test_h5_and_h6_end_as_planted(recipe: str) -> None:
    suffix = "" if recipe == "recall" else "/recall_spec"
    keys = (f"H5{suffix}", f"H6{suffix}")
    full = recalls(recipe, hits=1.0, stops=0.0)

    def outcome(hits: float, stops: float) -> tuple[str, str]:
        front, without = f"{recipe}/memory_front", f"{recipe}/no_step1"
        found = verdicts_of(
            {recipe: full, front: recalls(front, 1.0, stops), without: recalls(without, hits, 0.0)}
        )
        return found[keys[0]], found[keys[1]]

    assert outcome(hits=0.0, stops=1.0) == ("supported", "supported")
    assert outcome(hits=1.0, stops=0.0) == ("refuted", "refuted")
    assert set(verdicts_of({recipe: full}).values()) == {"not_decided"}


def test_the_literal_recipe_has_no_verdict_before_its_gate() -> None:
    rows = {
        name: recalls(name, 0.0, 1.0)
        for name in ("recall_spec", "recall_spec/no_step1", "recall_spec/memory_front")
    }
    rows["recall_spec"] = recalls("recall_spec", 1.0, 0.0)
    assert verdicts_of(rows)["H6/recall_spec"] == "supported"
    assert set(verdicts_of(rows, gated=False).values()) == {"not_decided"}


def test_chance_is_the_share_of_gold_entries_among_those_searched() -> None:
    def evidence(records: list[TurnRecord]) -> Difference:
        return step1_evidence(records, 4)["against chance"]

    def found(number: int, *entries: str) -> Answer:
        lookups = (Lookup(entries[0], 0.5, "", tuple((entry, 0.5) for entry in entries)),)
        return answer(recall_raw("some text", "something"), lookups)

    clauses = [turn(n, "first_ask", found(n, "c0", "c1")) for n in range(1, 5)]
    assert evidence(clauses).reference == 1 / 4  # no null memory: recall_spec
    with_null = [*clauses, turn(5, "first_ask", found(5, "c3", ""))]
    assert evidence(with_null).reference == 1 / 5
    assert evidence([*clauses, turn(5, "first_ask", found(5, "", "c3"))]).reference == 1 / 5
    two = replace(question(6), memory_ids=("c1", "c2"))
    both = [*with_null, turn(6, "two_clause", found(6, "c3"), qa=two)]
    assert evidence(both).reference == pytest.approx((5 * 1 + 2) / 6 / 5)
    no_lookup = [*with_null, turn(7, "first_ask", answer(recall_raw("t", "x")))]
    assert evidence(no_lookup).reference == 1 / 5


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
        pairs = compare_pairs({name: accuracy(records) for name, records in arms.items()})
        assert set(pairs) == set(combinations(copies, 2))
        alarms += any(pair.outcome == "different" for pair in pairs.values())
    assert alarms <= 10 + 2 * (200 * 0.05 * 0.95) ** 0.5


def test_a_planted_gap_is_called_different() -> None:
    rng = RNG(0)
    arms = {
        "recall": dialogues(right_with(0.9, rng), 30),
        "rag": dialogues(right_with(0.5, rng), 30, method="rag"),
        "sft": dialogues(right_with(0.5, rng), 30, method="sft"),
    }
    pairs = compare_pairs({name: accuracy(records) for name, records in arms.items()})
    assert pairs["recall", "rag"].outcome == pairs["recall", "sft"].outcome == "different"
    assert pairs["rag", "sft"].outcome == "no_difference_shown"
    assert pairs["recall", "rag"].families_needed == 0 and (pairs["rag", "sft"].families_needed or 0) > 0
    assert pairs["recall", "rag"].p_holm >= pairs["recall", "rag"].difference.p


def test_a_hypothesis_can_be_judged_for_another_recipe() -> None:
    other: Hypothesis = replace(BY_KEY["H1"], key="H1/recall_quoted", recipe="recall_quoted")
    assert judge(other, {"against rag": difference(0.0, 0.01)}).as_dict()["recipe"] == "recall_quoted"
