"""What the lifecycle pass shows: pure functions of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from eval import ledger
from eval.lifecycle_plan import STEPS
from eval.records import EditRecord, LifecyclePhase, LifecycleRecord, LifecycleStep, TurnRecord
from eval.retention import correct, key_of
from eval.scoring import abstains, held_values
from eval.stats import (
    Estimate,
    Sample,
    estimate,
    estimate_mean,
    missing,
    paired_difference,
    sample,
)


def turns_of(
    records: Sequence[LifecycleRecord],
    step: LifecycleStep,
    phase: LifecyclePhase = "after",
    role: Literal["target", "neighbour"] = "target",
    num_added: int = 0,
) -> list[TurnRecord]:
    """The answers of one step and phase, as turns."""
    return [
        record.turn
        for record in records
        if (record.step, record.phase, record.role, record.num_added) == (step, phase, role, num_added)
    ]


def stale(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about updated clauses whose answer holds the old value.

    A value that the answer denies ("6 weeks, not 5") does not count. phase "before": how often the old value
    was known at all.
    """
    old = {id(record.turn): set(record.old) for record in records}

    def value(turn: TurnRecord) -> bool | None:
        qa = key_of(turn)
        return None if qa is None else not old[id(turn)].isdisjoint(held_values(turn.answer.final, qa)[1])

    return sample(turns_of(records, "update", phase), value, NOT_TAKEN["update"])


def declined(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about forgotten clauses that were answered by abstaining."""

    def value(turn: TurnRecord) -> bool | None:
        qa = key_of(turn)
        return None if qa is None else abstains(turn.answer.final, qa)

    return sample(turns_of(records, "forget", phase), value, _NOTHING["forget", phase])


def still_right(records: Sequence[LifecycleRecord], phase: LifecyclePhase = "after") -> Sample:
    """Share of the questions about forgotten clauses that were answered right all the same."""
    return sample(turns_of(records, "forget", phase), correct, _NOTHING["forget", phase])


def neighbours(
    records: Sequence[LifecycleRecord], step: LifecycleStep = "forget", phase: LifecyclePhase = "after"
) -> Sample:
    """Share of right answers about clauses that a step leaves alone.

    update, forget: siblings of the changed clauses; write: any fitted clauses.
    """
    taken = any(record.step == step for record in records)
    reason = f"no neighbour was asked about: {step}" if taken else NOT_TAKEN[step]
    return sample(turns_of(records, step, phase, "neighbour"), correct, reason)


def spent(edits: Sequence[EditRecord], step: LifecycleStep, what: Literal["seconds", "tokens", "bytes"]) -> Sample:
    """What a change costs: seconds, trained tokens or bytes a memory, each memory's share of its call.

    A refit, which changes all of them, counts whole. Bytes are the change of the bank or index: above 0 it grew,
    below 0 it shrank.
    """

    def value(edit: EditRecord) -> float | None:
        if what == "seconds":
            return edit.seconds
        if what == "tokens":
            return edit.trained_tokens
        if edit.bytes_before is None or edit.bytes_after is None:
            return None
        return edit.bytes_after - edit.bytes_before

    of_step = [edit for edit in edits if edit.step == step]
    kept: list[tuple[EditRecord, str, float]] = []
    for edit in of_step:
        number = value(edit)
        if number is not None:
            shared = ("",) if edit.refit else edit.memory_ids
            kept += [(edit, memory_id, number / len(shared)) for memory_id in shared]
    if of_step:
        weights = "weights hold it: no clause has bytes of its own"
        reason = weights if of_step[0].refit else "the method does not tell what it stores"
    else:
        reason = NO_GROWTH if step == "growth" and any(edit.refit for edit in edits) else NOT_TAKEN[step]
    return Sample(
        values=np.array([number for _, _, number in kept], dtype=np.float64),
        clusters=tuple(_edit_cluster(edit) for edit, _, _ in kept),
        seeds=tuple(edit.seed for edit, _, _ in kept),
        items=tuple(memory_id for _, memory_id, _ in kept),
        reason=reason,
    )


def _edit_cluster(edit: EditRecord) -> str:
    return " ".join(edit.memory_ids)


NOT_TAKEN: dict[LifecycleStep, str] = {  # why a step has no records
    "write": "no clause was left to write",
    "update": "the task revises no clause",
    "forget": "no clause was forgotten",
    "growth": "no distractor was written",
}
CUED = {"cued": True, "uncued": False}  # written clauses with training questions, and those without
NO_GROWTH = "its memories are changed by a refit, and one for every size is not made"
_NOTHING: dict[tuple[LifecycleStep, LifecyclePhase], str] = {
    ("forget", "before"): NOT_TAKEN["forget"],
    ("forget", "after"): NOT_TAKEN["forget"],
    ("forget", "recall_off"): "it has no recall to switch off",
}


def _none_written(written: Sequence[TurnRecord], kind: str) -> str:
    """Why a metric of the cued or the uncued written clauses has no value."""
    return f"none of the written clauses is {kind}" if written else NOT_TAKEN["write"]


def _change(before: Sample, after: Sample) -> Estimate:
    """Mean after minus mean before, over the questions asked both times."""
    for drawn in (before, after):
        if not len(drawn):
            return missing(drawn.reason)
    difference = paired_difference(after, before)
    return Estimate(difference.value, difference.low, difference.high, difference.n)


def lifecycle_metrics(records: Sequence[LifecycleRecord], edits: Sequence[EditRecord]) -> dict[str, Estimate]:
    """All lifecycle/* metrics of one method."""
    written, updated = turns_of(records, "write"), turns_of(records, "update")
    shares = {
        "lifecycle/write_accuracy": sample(written, correct, NOT_TAKEN["write"]),
        "lifecycle/update_accuracy": sample(updated, correct, NOT_TAKEN["update"]),
        "lifecycle/stale_rate": stale(records),
        "lifecycle/stale_before": stale(records, "before"),
        "lifecycle/forget_abstention": declined(records),
        "lifecycle/forget_abstention_before": declined(records, "before"),
        "lifecycle/forget_abstention_recall_off": declined(records, "recall_off"),
        "lifecycle/forget_still_right": still_right(records),
        "lifecycle/forget_right_before": still_right(records, "before"),
        "lifecycle/forget_still_right_recall_off": still_right(records, "recall_off"),
        "lifecycle/neighbour_accuracy": neighbours(records),
        "lifecycle/neighbour_before": neighbours(records, phase="before"),
    }
    for kind, cued in CUED.items():
        asked = [turn for turn in written if turn.cued is cued]
        shares[f"lifecycle/write_accuracy_{kind}"] = sample(asked, correct, _none_written(written, kind))
    metrics = {name: estimate(drawn) for name, drawn in shares.items()}
    for step in ("write", "update", "forget"):
        metrics[f"lifecycle/{step}_neighbour_change"] = _change(
            neighbours(records, step, "before"), neighbours(records, step)
        )
    for step in STEPS:
        metrics[f"lifecycle/{step}_s"] = estimate_mean(spent(edits, step, "seconds"))
        metrics[f"lifecycle/{step}_bytes"] = estimate_mean(spent(edits, step, "bytes"))
        metrics[f"lifecycle/{step}_tokens"] = estimate_mean(spent(edits, step, "tokens"))
    rewritten = [edit.rewritten for edit in edits if edit.step == "write"]
    metrics["lifecycle/rewritten"] = (
        Estimate(float(any(rewritten)), n=len(rewritten)) if rewritten else missing(NOT_TAKEN["write"])
    )
    threads = [edit.threads for edit in edits if edit.threads]
    metrics["lifecycle/refit_threads"] = (
        Estimate(float(min(threads)), n=len(threads)) if threads else missing("no refit told its threads")
    )
    refits = {edit.refit for edit in edits}
    metrics["lifecycle/refit"] = (
        Estimate(float(any(refits)), n=len(edits)) if edits else missing("nothing was changed")
    )
    return metrics | _lookup_metrics(records, edits)


def _lookup_metrics(records: Sequence[LifecycleRecord], edits: Sequence[EditRecord]) -> dict[str, Estimate]:
    """Look-ups of written clauses, and of fitted ones among distractors; for methods that can write.

    write_verbatim: of the asks about written clauses that found the right one first, the share whose text came
    back word for word (`ledger.verbatim_given_hit`).
    """
    written = turns_of(records, "write")
    metrics: dict[str, Estimate] = {}
    for name, metric in (("hit_at_1", ledger.hit_at_1), ("verbatim", ledger.verbatim_given_hit)):
        found = estimate(metric(written)) if written else missing(NOT_TAKEN["write"])
        metrics[f"lifecycle/write_{name}"] = found
        for kind, cued in CUED.items():
            asked = [turn for turn in written if turn.cued is cued]
            found = estimate(metric(asked)) if asked else missing(_none_written(written, kind))
            metrics[f"lifecycle/write_{name}_{kind}"] = found
    if any(edit.refit for edit in edits):
        never = dict.fromkeys(metrics, missing("it never looks anything up"))
        return never | {"lifecycle/growth_hit_change": missing(NO_GROWTH)}
    sizes = sorted({record.num_added for record in records if record.step == "growth"})
    grown = {
        size: ledger.hit_at_1(turns_of(records, "growth", "after" if size else "before", num_added=size))
        for size in sizes
    }
    if len(sizes) > 1:
        metrics["lifecycle/growth_hit_change"] = _change(grown[sizes[0]], grown[sizes[-1]])
    else:
        metrics["lifecycle/growth_hit_change"] = missing(NOT_TAKEN["growth"])
    return metrics | {f"lifecycle/hit_at_1_plus{size}": estimate(drawn) for size, drawn in grown.items()}


KEYS = tuple(lifecycle_metrics((), ()))  # without those that name a size of the bank
