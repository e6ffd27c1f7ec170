"""Ordinary ability: its items, and its figures from records."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from eval.ability import (
    FREE_TOPICS,
    GENERATION,
    MULTIPLE_CHOICE,
    ability_evidence,
    ability_metrics,
    correct,
    final_of,
    generation_items,
    items_right,
    multiple_choice_items,
    reasoned,
    reasoning_kept,
    shape,
)
from eval.records import AbilityArm, AbilityRecord, RecordError
from eval.scoring import normalise
from eval.verdict import judge_all
from tasks.base import TaskData
from tasks.registry import load_task


@pytest.fixture(scope="module")
def task() -> TaskData:
    return load_task("regs", 6, 0)


# --- items --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_are_one_right_and_three_wrong_of_one_shape(task: TaskData, seed: int) -> None:
    items = multiple_choice_items(task, seed, 200)
    assert len(items) == 200
    golds = {c.id: normalise(c.messages[1].content.split("</think>")[1]) for c in task.sft_heldout}
    for item in items:
        assert normalise(item.gold) == golds.get(item.id, normalise(item.gold))
        assert len({normalise(choice) for choice in item.choices}) == 4
        assert item.gold in item.choices
        assert {shape(choice) for choice in item.choices} == {shape(item.gold)}
    places = Counter(item.choices.index(item.gold) for item in items)
    assert max(places.values()) < 0.45 * len(items)


def test_items_are_held_out_questions_with_one_right_answer(task: TaskData) -> None:
    asked = {c.messages[0].content for c in task.sft}
    for build in (multiple_choice_items, generation_items):
        items = build(task, 0, 300)
        assert not {item.question for item in items} & asked
        assert not {item.topic for item in items} & FREE_TOPICS
        assert len({item.id for item in items}) == len({item.question for item in items}) == len(items)
        assert build(task, 0, 300) == items and len(items) == 300  # more than the corpus holds out
        drawn = build(task, 0, 20)
        assert len(drawn) == 20
        assert {i.id for i in build(task, 1, 20)} != {i.id for i in drawn}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("17 hours", "3 hours", True),
        ("17 hours", "17 euros", False),
        ("Friday", "Monday", True),
        ("Friday", "July", False),
        ("8 April", "12 July", True),
        ("Anna", "tea", False),
        ("Mona Castell", "Hamid Keller", True),
        ("Yes", "No", True),
        ("No", "tea", False),
        ("14:30", "9:05", True),
    ],
)
def test_shapes(one: str, other: str, same: bool) -> None:
    assert (shape(one) == shape(other)) is same


@pytest.mark.parametrize(
    ("output", "final"),
    [
        ("<think>\nTwo and two.\n</think>\n4", "4"),
        ("4", "4"),
        ("<think>\nTwo and two is 4", ""),
        ("Two and two</think>4", "4"),
        ("<think></think>", ""),
    ],
)
def test_the_final_answer(output: str, final: str) -> None:
    assert final_of(output) == final


def test_an_item_that_cannot_be_scored_is_named(task: TaskData) -> None:
    item = multiple_choice_items(task, 0, 1)[0]
    values = (0.0, -1.0, -2.0, -3.0)
    good = AbilityRecord(
        "recall", 0, "after", MULTIPLE_CHOICE, item.id, item.question, item.gold, item.topic, item.choices, values
    )
    assert correct(good) == float(item.choices[0] == item.gold)
    for broken in (
        replace(good, log_likelihoods=(0.0,)),
        replace(good, log_likelihoods=(0.0, float("nan"), 0.0, 0.0)),
        replace(good, gold="something else"),
        replace(good, task="hellaswag"),
    ):
        with pytest.raises(RecordError, match="record recall/0/after/"):
            correct(broken)
    assert correct(replace(good, task="hellaswag", score=0.25)) == 0.25


# --- metrics from records -----------------------------------------------------------------------


def planted_records(num_items: int, before: int, after: int, memory: int) -> list[AbilityRecord]:
    """So many of the items are right in each arm, the first ones."""
    arms: dict[AbilityArm, int] = {"before": before, "after": after, "with_memory": memory, "with_random": after}
    return [
        AbilityRecord(
            "recall", 0, arm, name, f"i{n}", "q", "x", choices=("x", "y"), output="x" if n < right else "y",
            log_likelihoods=(-1.0, -2.0) if n < right else (-2.0, -1.0),
        )
        for arm, right in arms.items()
        for name in (MULTIPLE_CHOICE, GENERATION)
        if name == MULTIPLE_CHOICE or arm in ("before", "after")
        for n in range(num_items)
    ]  # fmt: skip


def test_planted_shares_are_reported() -> None:
    records = planted_records(100, before=80, after=70, memory=10)
    metrics = ability_metrics(records)
    shares = {"before": 0.8, "after": 0.7, "with_memory": 0.1, "with_random": 0.7}
    shares |= {"before/generation": 0.8, "after/generation": 0.7, "change": -0.1, "memory_change": -0.6}
    for name, share in shares.items():
        found = metrics[f"ability/{name}"]
        assert found.value == pytest.approx(share) and found.n == 100
        assert found.low is not None and found.high is not None and found.low < share < found.high
    assert metrics["ability/change"].high < 0  # type: ignore[operator]


def test_nothing_measured_has_a_reason() -> None:
    metrics = ability_metrics([])
    assert set(metrics) == {f"ability/{name}" for name in ("before", "after", "with_memory", "reasoning_kept")}
    assert all(metric.reason == "the ability pass was not run" for metric in metrics.values())


def test_seeds_are_pooled() -> None:
    records = planted_records(30, 20, 20, 20)
    records += [replace(record, seed=1) for record in records]
    assert ability_metrics(records)["ability/after"].n == 60
    assert len(items_right(records, "after")) == 60


# --- H4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(2000, 2000, "supported"), (2000, 1600, "refuted"), (2000, 1855, "not_decided")],
)
def test_h4_reads_the_records(before: int, after: int, outcome: str) -> None:
    records = planted_records(3000, before, after, after)
    verdict = judge_all([], [], abilities=records)["H4"]
    assert verdict.outcome == outcome, verdict.reason
    assert set(verdict.evidence) == {"multiple choice", "generation"}
    assert verdict.evidence["multiple choice"].value == pytest.approx((after - before) / 3000)


def h4(num_items: int, seeds: int, lost: int = 0) -> str:
    """The outcome where the first seed's fit loses so many items that the model before had right."""
    records = planted_records(num_items, num_items, num_items - lost, 0)
    steady = planted_records(num_items, num_items, num_items, 0)
    records += [replace(record, seed=seed) for seed in range(1, seeds) for record in steady]
    return judge_all([], [], abilities=records)["H4"].outcome


def test_more_items_or_seeds_without_a_loss_decide_h4_and_a_loss_never_does_first() -> None:
    sizes = [(30, 1), (60, 1), (80, 1), (30, 2), (30, 3), (45, 3)]
    outcomes = {size: h4(*size) for size in sizes}
    assert outcomes == {
        (30, 1): "not_decided",  # up to 11.5 points could go unseen
        (60, 1): "not_decided",
        (80, 1): "supported",
        (30, 2): "not_decided",
        (30, 3): "not_decided",  # the same items again are worth fewer than as many new ones
        (45, 3): "supported",
    }
    for size in sizes:
        if outcomes[size] == "not_decided":
            assert h4(*size, lost=1) == "not_decided"


def test_h4_is_about_recall_and_both_tasks() -> None:
    records = planted_records(3000, 2000, 2000, 2000)
    others = [replace(record, method="sft") for record in records]
    verdict = judge_all([], [], abilities=others)["H4"]
    assert verdict.outcome == "not_decided" and verdict.reason == "needs ability figures before and after the fit"
    half = [record for record in records if record.task == MULTIPLE_CHOICE]
    verdict = judge_all([], [], abilities=half)["H4"]
    assert verdict.outcome == "not_decided" and "needs generation before and after the fit" in verdict.reason
    # The gain in one task does not make up for the loss in the other.
    mixed = [
        replace(r, log_likelihoods=(-2.0, -1.0)) if r.arm == "after" and int(r.item_id[1:]) < 400 else r
        for r in records
    ]
    assert judge_all([], [], abilities=mixed)["H4"].outcome == "refuted"
    assert ability_evidence([]) == ({}, "")


CHAIN = "First 12 plus 10 is 22. Then adding the remaining 3 gives 25."
REASONED = f"<think>\n{CHAIN}\n</think>\n25"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (REASONED, 1.0),
        ("<think>\nFirst 12 plus 10 is 22.\n</think>\n25", 1.0),  # half of the steps
        (REASONED[:-2] + "26", 0.0),  # another answer
        ("<think>\nI simply know it.\n</think>\n25", 0.0),  # none of the steps
        (REASONED.replace("</think>\n", ""), 0.0),  # never closed
        ("25", 0.0),  # nothing is thought
        (f"<think>\n<recall>{CHAIN}</recall>\n</think>\n25", 0.0),  # recalled, not reasoned
        (REASONED.replace("22.", "22. <recall>"), 0.0),
    ],
)
def test_what_counts_as_reasoned(output: str, expected: float) -> None:
    record = AbilityRecord("sft", 0, "after", GENERATION, "i", "12 + 13?", "25", output=output, chain=CHAIN)
    assert reasoned(record) == expected


def test_reasoning_kept_is_of_what_the_base_reasoned() -> None:
    """Of ten problems the base reasons through six; the fit through three of these and two others."""

    def records(arm: AbilityArm, right: range) -> list[AbilityRecord]:
        said = [REASONED if n in right else "no" for n in range(10)]
        return [
            AbilityRecord("sft", 0, arm, GENERATION, f"i{n}", "q", "25", output=text, chain=CHAIN)
            for n, text in enumerate(said)
        ]

    found = reasoning_kept([*records("before", range(6)), *records("after", range(3, 8))])
    assert (found.value, found.n) == (0.5, 6)
    assert found.low is not None and found.low < 0.5
    nothing = reasoning_kept([*records("before", range(0)), *records("after", range(3))])
    assert nothing.value is None and "no problem" in nothing.reason
