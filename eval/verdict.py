"""The specification's expectations as hypotheses written down beforehand, and how each is judged.

Expectations: docs/SPEC.zh.md, sections 4.4, 6 and 7. Rules: DESIGN section 6. Each ends as *supported*,
*refuted* or *not decided by this data*. There is no verdict where both arms are at the floor. Else the 95%
interval decides: it already holds what the data could see, so what lies wholly on one side of its bound is
supported or refuted, and an open one comes with how much more data would decide it.

"Highest" is an intersection-union test (Berger 1982, doi:10.1080/00401706.1982.10487790): it holds where every
comparison does, each at its own unadjusted 5%; to refute it one comparison is enough, so Holm adjusts there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from eval import ledger, retention, structure
from eval.ability import ability_evidence
from eval.cost import relative_latency, relative_peaks
from eval.records import AbilityRecord, CostRecord, TurnRecord
from eval.stats import (
    LEVEL,
    Difference,
    Sample,
    StatsError,
    difference_from,
    families_needed,
    holm,
    paired_difference,
)

Outcome = Literal["supported", "refuted", "not_decided"]
Rule = Literal[
    "not_lower",  # supported: arm - reference above -margin; refuted: below it
    "not_higher",  # supported: below +margin; refuted: above it
    "highest",  # supported: above 0 against every reference; refuted: below 0 against one (Holm)
    "higher_by",  # supported: above +margin; refuted: below it
]
WORDS: dict[Outcome, str] = {
    "supported": "supported",
    "refuted": "refuted",
    "not_decided": "not decided by this data",
}
NO_STEP1, FRONT_ONLY = "no_step1", "memory_front"  # rows behind a recipe's name that H5 and H6 rest on
FLOOR = 0.10  # a share of right answers at or below which an arm is taken to have failed altogether


@dataclass(frozen=True)
class Hypothesis:
    """One expectation, with all that its verdict depends on."""

    key: str  # in summary.json: H1 .. H6, with what it is about behind a slash
    claim: str  # in plain words
    references: tuple[str, ...]  # what the arm is compared with
    metric: str
    split: str
    margin: float  # in the metric's unit; 0.05 = 5 points, or 5 per cent of a cost
    rule: Rule
    recipe: str = "recall"  # the arm that it is about
    floor: float | None = FLOOR  # None: low values are no failure (costs, stop rates)
    needs: str = ""  # what must be measured, where records of the retention and cost passes lack it
    unit: str = "families"  # of which more would decide it

    @property
    def id(self) -> str:
        return self.key.partition("/")[0]


def _ablation(recipe: str, suffix: str) -> tuple[Hypothesis, Hypothesis]:
    return (
        Hypothesis(
            key=f"H5{suffix}",
            claim="Without Step 1 the <recall> state finds the right memory no more often than chance.",
            recipe=recipe,
            references=("chance",),
            metric="ledger/hit_at_1",
            split="dev",
            margin=0.05,
            rule="not_higher",
            floor=None,
            needs=f"python -m pipelines.ablate rows={recipe}/{NO_STEP1}",
        ),
        Hypothesis(
            key=f"H6{suffix}",
            claim="Trained on memory_front alone, the model stops after it has recalled.",
            recipe=recipe,
            references=(f"{recipe}, full mix",),
            metric="structure/stopped_after_recall",
            split="dev",
            margin=0.10,
            rule="higher_by",
            floor=None,
            needs=f"python -m pipelines.ablate rows={recipe}/{FRONT_ONLY}",
        ),
    )


_H1 = "Recall keeps as much as RAG: its first asks are right at most 5 points less often ({} clauses)."
HYPOTHESES: tuple[Hypothesis, ...] = (
    *(
        Hypothesis(
            key=key,
            claim=_H1.format(split),
            references=("rag",),
            metric=f"retention/first_ask_{split}",
            split=f"test, {split}",
            margin=0.05,
            rule="not_lower",
        )
        for key, split in (("H1", "cued"), ("H1/uncued", "uncued"))
    ),
    Hypothesis(
        key="H2",
        claim="Recall costs what SFT costs: latency and peak memory at most 10% higher.",
        references=("sft",),
        metric="cost/latency_mean_s and cost/peak_*_bytes",
        split="timed questions that both answer",
        margin=0.10,
        rule="not_higher",
        floor=None,
        unit="families (or measurements of memory)",
    ),
    Hypothesis(
        key="H3",
        claim="Recall's answers are correct and well formed at once more often than any rival's.",
        references=("sft", "rag"),
        metric="structure/correct_and_well_formed",
        split="test",
        margin=0.05,
        rule="highest",
    ),
    Hypothesis(
        key="H4",
        claim="Mixing in sft_only keeps ordinary ability: at most 5 points below the model before.",
        references=("before the fit",),
        metric="ability/after",
        split="held-out general tasks",
        margin=0.05,
        rule="not_lower",
        floor=None,
        needs="ability figures before and after the fit",
        unit="problems",
    ),
    *_ablation("recall", ""),
    *_ablation("recall_spec", "/recall_spec"),
)


@dataclass(frozen=True)
class Verdict:
    """A hypothesis with its outcome, the reason in plain words, and the figures behind it."""

    hypothesis: Hypothesis
    outcome: Outcome
    reason: str
    evidence: dict[str, Difference] = field(default_factory=dict)  # label -> figures

    def as_dict(self) -> dict[str, Any]:
        h = self.hypothesis
        return {
            "id": h.id,
            "verdict": WORDS[self.outcome],
            "reason": self.reason,
            "claim": h.claim,
            "recipe": h.recipe,
            "references": list(h.references),
            "metric": h.metric,
            "split": h.split,
            "margin": h.margin,
            "evidence": {label: asdict(difference) for label, difference in self.evidence.items()},
        }


def _figures(difference: Difference) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def bound_of(hypothesis: Hypothesis) -> float:
    """Where holding and failing meet: -margin, +margin, or 0 for "highest"."""
    if hypothesis.rule == "highest":
        return 0.0
    return -hypothesis.margin if hypothesis.rule == "not_lower" else hypothesis.margin


def _part(hypothesis: Hypothesis, difference: Difference, p_holm: float, level: float) -> tuple[Outcome, str]:
    """The outcome of one comparison."""
    floor, bound, figures = hypothesis.floor, bound_of(hypothesis), f"difference {_figures(difference)}"
    if floor is not None and max(difference.arm, difference.reference) <= floor:
        return "not_decided", (
            f"both arms are at the floor ({difference.arm:.3f} and {difference.reference:.3f}, floor {floor})"
        )
    if hypothesis.rule == "highest":
        above, below = difference.p < level and difference.value > 0, p_holm < level and difference.value < 0
        figures += f", p = {difference.p:.3f}, by Holm {p_holm:.3f}"
    else:
        above, below = difference.low > bound, difference.high < bound
    if not (above or below):
        return (
            "not_decided",
            f"{figures}: neither side of {bound:+.2f} is shown; {advice(hypothesis, difference, level)}",
        )
    supports = below if hypothesis.rule == "not_higher" else above
    return ("supported" if supports else "refuted"), f"{figures}: all {'above' if above else 'below'} {bound:+.2f}"


def advice(hypothesis: Hypothesis, difference: Difference, level: float = LEVEL) -> str:
    """What an open comparison could have shown, and how much more data would decide it 4 times in 5."""
    more = families_needed(difference, bound_of(hypothesis), LEVEL / level)
    seen = f"effects under {difference.mde:.3f} go unseen here"
    if more is None:
        return f"{seen}, and a difference on the bound itself is never decided"
    return f"{seen}; {more} more {hypothesis.unit} would decide a difference of this size"


def judge(
    hypothesis: Hypothesis, evidence: Mapping[str, Difference], reason: str = "", level: float = LEVEL
) -> Verdict:
    """Applies the rules of DESIGN section 6 to the figures of one hypothesis.

    evidence: label -> difference; a hypothesis with several parts (two costs, two rivals) is supported
    when every part is and refuted when one part is. Empty: not decided, for `reason` or for want of what
    the hypothesis `needs`. level: two-sided, at which the evidence's intervals were taken.
    """
    if not evidence:
        return Verdict(hypothesis, "not_decided", reason or f"needs {hypothesis.needs}")
    labels = list(evidence)
    adjusted = holm([evidence[label].p for label in labels])
    parts = [_part(hypothesis, evidence[label], p, level) for label, p in zip(labels, adjusted, strict=True)]
    outcomes = [outcome for outcome, _ in parts]
    text = "; ".join(f"{label}: {why}" for label, (_, why) in zip(labels, parts, strict=True))
    if "refuted" in outcomes:
        return Verdict(hypothesis, "refuted", text, dict(evidence))
    if all(outcome == "supported" for outcome in outcomes) and not reason:
        return Verdict(hypothesis, "supported", text, dict(evidence))
    return Verdict(hypothesis, "not_decided", "; ".join(filter(None, (text, reason))), dict(evidence))


# --- evidence from records ----------------------------------------------------------------------


def step1_evidence(without_step1: Sequence[TurnRecord], num_memories: int) -> dict[str, Difference]:
    """Evidence for H5: hit@1 given a lookup, of the arm without Step 1, against chance.

    Chance is the share of gold clauses among the entries that a lookup chooses from: num_memories clauses, and
    the null memory where some lookup of these records chose or considered it (`recall` has one, `recall_spec`
    has none). Mean over the answers that hit@1 is over; a question on two clauses has two gold ones.
    """
    asks = [record for record in without_step1 if record.answer.lookups]
    seen = {lookup.memory_id for record in asks for lookup in record.answer.lookups}
    seen |= {entry for record in asks for lookup in record.answer.lookups for entry, _ in lookup.candidates}
    num_entries = num_memories + ("" in seen)  # the null memory's id
    keys = [qa for record in asks if (qa := retention.answerable_key_of(record)) is not None]
    num_gold = float(np.mean([len(qa.memory_ids) for qa in keys])) if keys else 1.0
    found = ledger.hit_at_1(without_step1)
    return {"against chance": difference_from(found, num_gold / num_entries)}


def front_only_evidence(front_only: Sequence[TurnRecord], full_mix: Sequence[TurnRecord]) -> dict[str, Difference]:
    """Evidence for H6: share of recalls after which the arm stops, memory_front alone minus full mix."""
    arms = (structure.stopped_after_recall(front_only), structure.stopped_after_recall(full_mix))
    return {"against the full mix": paired_difference(*arms)}


def judge_ablation(
    groups: Mapping[str, Sequence[TurnRecord]], num_memories: int, gates: Collection[str]
) -> dict[str, Verdict]:
    """H5 and H6 of each recipe, by key, from the turns of an ablation's rows (`recall/no_step1`, say).

    gates: recipes that passed the gate on a set that they may overfit (DESIGN section 4): without it
    `recall_spec` gets no verdict.
    """
    verdicts: dict[str, Verdict] = {}
    for hypothesis in (h for h in HYPOTHESES if h.id in ("H5", "H6")):
        recipe = hypothesis.recipe
        rows = (recipe, f"{recipe}/{FRONT_ONLY}", f"{recipe}/{NO_STEP1}")
        full, front, without = (groups.get(row) for row in rows)
        found: Mapping[str, Difference] = {}
        reason = ""
        try:
            if hypothesis.id == "H5" and without:
                found = step1_evidence(without, num_memories)
            elif hypothesis.id == "H6" and front and full:
                found = front_only_evidence(front, full)
        except StatsError as error:
            reason = str(error)
        if found and recipe == "recall_spec" and recipe not in gates:
            found, reason = {}, "needs recall_spec to pass its gate first: a bug would look the same"
        verdicts[hypothesis.key] = judge(hypothesis, found, reason)
    return verdicts


def _retention_evidence(
    hypothesis: Hypothesis, groups: Mapping[str, Sequence[TurnRecord]], level: float
) -> tuple[dict[str, Difference], str]:
    """Differences of the recipe to each reference on test questions, and what is missing."""

    def metric(records: Sequence[TurnRecord]) -> Sample:
        tested = [r for r in records if r.qa is not None and r.qa.split == "test"]
        if hypothesis.id == "H3":
            return structure.correct_and_well_formed(tested)
        return retention.first_ask(tested, cued=hypothesis.metric.endswith("_cued"))

    evidence: dict[str, Difference] = {}
    for reference in hypothesis.references:
        absent = [name for name in (hypothesis.recipe, reference) if not groups.get(name)]
        if absent:
            return evidence, f"needs records of {' and '.join(absent)}"
        try:
            arms = metric(groups[hypothesis.recipe]), metric(groups[reference])
            difference = paired_difference(*arms, level=level)
        except StatsError as error:
            return evidence, f"needs {hypothesis.metric} on test questions of both arms ({error})"
        evidence[f"against {reference}"] = difference
    return evidence, ""


def _cost_evidence(
    hypothesis: Hypothesis, costs: Sequence[CostRecord], level: float
) -> tuple[dict[str, Difference], str]:
    """Relative differences in mean latency and in peak memory, and what is missing."""
    reference = hypothesis.references[0]
    arms = [[r for r in costs if r.method == name] for name in (hypothesis.recipe, reference)]
    if not all(arms):
        return {}, f"needs timed answers of {hypothesis.recipe} and {reference}"
    kinds = {record.memory_kind for arm in arms for record in arm}
    evidence: dict[str, Difference] = {}
    try:
        evidence["latency"] = relative_latency(arms[0], arms[1], level)
        if len(kinds) > 1:
            return evidence, "needs peak memory of one kind: " + " and ".join(sorted(kinds)) + " do not compare"
        evidence["memory"] = relative_peaks(arms[0], arms[1], kinds.pop(), level)
    except StatsError as error:
        what = "peak memory, several times over" if evidence else "timed questions that both arms answer"
        return evidence, f"needs {what} ({error})"
    return evidence, ""


def judge_all(
    turns: Sequence[TurnRecord],
    costs: Sequence[CostRecord],
    *,
    abilities: Sequence[AbilityRecord] = (),
    level: float = LEVEL,
    keys: Collection[str] = (),
) -> dict[str, Verdict]:
    """A verdict on every hypothesis, or on those of `keys`. level: two-sided, of the intervals of H1 to H3.

    H1 to H3 are computed from turns and costs, H4 from abilities, both local tasks being parts of it. H5 and H6
    rest on ablations (`judge_ablation`) and stay open here, with the command that decides them.
    """
    groups: dict[str, list[TurnRecord]] = {}
    for record in turns:
        groups.setdefault(record.method, []).append(record)
    verdicts: dict[str, Verdict] = {}
    for hypothesis in (h for h in HYPOTHESES if not keys or h.key in keys):
        found: Mapping[str, Difference] = {}
        reason = ""
        if hypothesis.id in ("H1", "H3"):
            found, reason = _retention_evidence(hypothesis, groups, level)
        elif hypothesis.id == "H2":
            found, reason = _cost_evidence(hypothesis, costs, level)
        elif hypothesis.id == "H4" and abilities:
            asked = [record for record in abilities if record.method == hypothesis.recipe]
            found, reason = ability_evidence(asked)
        verdicts[hypothesis.key] = judge(hypothesis, found, reason, LEVEL if hypothesis.id == "H4" else level)
    return verdicts


# --- every method against every other -----------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two methods on one metric."""

    difference: Difference
    p_holm: float  # adjusted over all pairs
    outcome: Literal["different", "no_difference_shown"]
    families_needed: int | None  # beyond those measured, to tell the two apart; 0: they are; None: none would do


def compare_pairs(
    samples: Mapping[str, Sample], fraction: float = 0.0, level: float = LEVEL
) -> dict[tuple[str, str], Pair]:
    """All pairs of methods on one metric, Holm over the pairs.

    samples: method -> its values. "different" from Holm p < level on; "no_difference_shown" is no proof of
    sameness: read it with the minimum detectable effect. fraction: as in eval.stats.variance_parts.
    """
    names = [name for name, drawn in samples.items() if len(drawn)]
    keys = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    differences = [paired_difference(samples[a], samples[b], fraction, level) for a, b in keys]
    adjusted = holm([difference.p for difference in differences])
    return {
        key: Pair(difference, p, "different", 0)
        if p < level
        else Pair(
            difference, p, "no_difference_shown", families_needed(difference, tests=len(keys) * LEVEL / level)
        )
        for key, difference, p in zip(keys, differences, adjusted, strict=True)
    }
