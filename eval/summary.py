"""summary.json: every metric of every method, by its stable name, with its interval.

DESIGN section 7. All numbers are computed from records alone; records of several seeds are pooled, with
intervals by families and seeds (eval.stats).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eval import ledger, lifecycle_metrics, retention, structure
from eval.cost import cost_metrics
from eval.ledger import MemoryPath
from eval.records import CostRecord, RecordError, TurnRecord
from eval.stats import LEVEL, Estimate, Sample, estimate, estimate_ratio, missing
from eval.verdict import Verdict, compare_pairs
from methods.base import FitReport
from tasks.base import TurnKind

KINDS: tuple[TurnKind, ...] = (
    "first_ask",
    "re_ask",
    "follow_up",
    "near_miss",
    "contradiction",
    "two_clause",
    "unanswerable",
)
CUED_KINDS: tuple[TurnKind, ...] = ("re_ask", "follow_up", "near_miss", "contradiction")
LOOKUPS: dict[str, Callable[[Sequence[TurnRecord]], Sample]] = {
    "ledger/trigger": ledger.trigger,
    "ledger/hit_at_1": ledger.hit_at_1,
    "ledger/hit_at_k": ledger.hit_at_k,
    "ledger/verbatim": ledger.verbatim_given_hit,
    "ledger/correct_given_verbatim": ledger.correct_given_verbatim,
}
NEVER_LOOKS_UP = missing("it never looks anything up")  # of a method that keeps all in its weights
NO_MEMORY = "none"  # the control arm that never saw a clause
NOT_RUN: dict[str, str] = {  # metrics of the passes that only evaluation=full runs
    **dict.fromkeys(
        ("ability/before", "ability/after", "ability/with_memory", "ability/reasoning_kept"),
        "the ability pass was not run",
    ),
    **dict.fromkeys(lifecycle_metrics.KEYS, "the lifecycle pass was not run"),
}


def by_method(records: Sequence[TurnRecord]) -> dict[str, list[TurnRecord]]:
    """Records of each method, methods in order of appearance. Raises RecordError on a repeated id."""
    groups: dict[str, list[TurnRecord]] = {}
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise RecordError(f"record {record.id} occurs twice; remove one of the lines")
        seen.add(record.id)
        groups.setdefault(record.method, []).append(record)
    return groups


def retention_metrics(records: Sequence[TurnRecord]) -> dict[str, Estimate]:
    """All retention/* and abstention/* metrics of one method."""
    samples = {
        "retention/accuracy": retention.accuracy(records),
        "retention/accuracy_loose": retention.accuracy_loose(records),
        "retention/exact_match": retention.exact_matches(records),
        "retention/f1": retention.f1(records),
        "retention/first_ask_cued": retention.first_ask(records, cued=True),
        "retention/first_ask_uncued": retention.first_ask(records, cued=False),
        **{f"retention/d{d}": retention.at_distance(records, d) for d in retention.DISTANCES},
        **{f"retention/re_ask_d{d}": retention.at_distance(records, d, "re_ask") for d in retention.DISTANCES},
        **{f"retention/{kind}": retention.by_kind(records, kind) for kind in KINDS},
        "retention/consistency": retention.consistency(records),
        "retention/flips": retention.flips(records),
        "retention/gives_in": retention.flips(records, "contradiction"),
        "retention/history_cut": retention.history_cut(records),
        "retention/passages_dropped": retention.passages_dropped(records),
        "abstention/precision": retention.abstention_precision(records),
        "abstention/recall": retention.abstention_recall(records),
        "abstention/recall_behind": retention.abstention_recall(retention.behind_a_clause(records)),
    }
    metrics = {name: estimate(drawn) for name, drawn in samples.items()}
    for d in retention.DISTANCES[1:]:
        near = retention.at_distance(retention.same_facts(records, d), 0)
        metrics[f"retention/ratio_d{d}"] = estimate_ratio(
            samples[f"retention/d{d}"], near, "nothing is right at distance 0"
        )
    return metrics


def unknown_metrics(records: Sequence[TurnRecord], control: Sequence[TurnRecord]) -> dict[str, Estimate]:
    """Accuracy where the control arm without memories is wrong, which is what the memories brought; and the rest.

    control: that arm's records; none: it was not run.
    """
    metrics: dict[str, Estimate] = {}
    for name, chosen in (("unknown", retention.unknown_to), ("known", retention.known_to)):
        keys = {f"retention/accuracy_{name}_to_none": None, f"retention/first_ask_{name}_to_none": "first_ask"}
        if not control:
            metrics |= dict.fromkeys(keys, missing(f"the control arm {NO_MEMORY} was not run"))
            continue
        answers = chosen(control, records)
        for key, kind in keys.items():
            of_kind = [r for r in answers if kind in (None, r.kind)]
            metrics[key] = estimate(retention.accuracy(of_kind))
    return metrics


def cued_and_uncued_metrics(records: Sequence[TurnRecord], path: MemoryPath) -> dict[str, Estimate]:
    """What the two splits of DESIGN section 3 come to, each apart: keys that end in _cued and _uncued.

    First asks by distance, the other turns that a clause answers, and the links of the ledger. First asks over
    all distances stand among `retention_metrics`.
    """
    metrics: dict[str, Estimate] = {}
    for cued, split in ((True, "cued"), (False, "uncued")):
        mine = retention.about(records, cued)
        samples = {
            **{f"retention/d{d}": retention.at_distance(mine, d) for d in retention.DISTANCES},
            **{f"retention/{kind}": retention.by_kind(mine, kind) for kind in CUED_KINDS},
            "ledger/gold": ledger.gold(mine, path),
            "ledger/used": ledger.used(mine, path),
        }
        links = {key: metric for key, metric in LOOKUPS.items() if key != "ledger/hit_at_k"}
        samples |= {key: metric(mine) for key, metric in links.items() if path != "weights"}
        for key, drawn in samples.items():
            metrics[f"{key}_{split}"] = estimate(retention.apart(drawn, cued))
        for key in links:
            metrics.setdefault(f"{key}_{split}", NEVER_LOOKS_UP)
    return metrics


def ledger_metrics(records: Sequence[TurnRecord], path: MemoryPath) -> dict[str, Estimate]:
    """All ledger/* metrics of one method; lookups do not apply to one that keeps all in its weights."""
    samples = {
        "ledger/recited": ledger.recited_in_think(records),
        "ledger/gold": ledger.gold(records, path),
        "ledger/used": ledger.used(records, path),
        "ledger/unaided": ledger.unaided(records, path),
        "ledger/false_recall": ledger.false_recall(records, path),
        "ledger/false_recall_behind": ledger.false_recall(retention.behind_a_clause(records), path),
        "ledger/missed_recall": ledger.missed_recall(records, path),
        "ledger/null_on_unanswerable": ledger.null_on_unanswerable(records, path),
    }
    metrics = {
        name: NEVER_LOOKS_UP if path == "weights" else estimate(metric(records))
        for name, metric in LOOKUPS.items()
    }
    return metrics | {name: estimate(drawn) for name, drawn in samples.items()}


def structure_metrics(records: Sequence[TurnRecord]) -> dict[str, Estimate]:
    """All structure/* metrics of one method."""
    samples = {
        "structure/well_formed": structure.well_formed(records),
        "structure/think_closed": structure.think_closed(records),
        "structure/stopped_after_recall": structure.stopped_after_recall(records),
        "structure/correct_and_well_formed": structure.correct_and_well_formed(records),
        "structure/steps_kept": structure.steps_kept(records),
        "structure/chain_kept": structure.chain_kept_on_ordinary(records),
        "structure/truncated": structure.truncated(records),
        "structure/leaked": structure.leaked(records),
    }
    return {name: estimate(drawn) for name, drawn in samples.items()}


def accuracy_by_turn(records: Sequence[TurnRecord]) -> dict[TurnKind, dict[int, Estimate]]:
    """Accuracy of each kind of turn by turn index, of one method's records."""
    return {
        kind: {turn: estimate(drawn) for turn, drawn in curve.items()}
        for kind, curve in retention.by_turn(records).items()
    }


def _as_sequence(fit: FitReport | Sequence[FitReport] | None) -> tuple[FitReport, ...]:
    if fit is None:
        return ()
    return (fit,) if isinstance(fit, FitReport) else tuple(fit)


def summarise(
    turns: Sequence[TurnRecord],
    costs: Sequence[CostRecord],
    fit: Mapping[str, FitReport | Sequence[FitReport]],
    *,
    task: str = "",
    preset: str = "",
    wall_s: float | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    extra: Mapping[str, Mapping[str, Estimate]] | None = None,
) -> dict[str, Any]:
    """The content of summary.json, ready for json.dump.

    fit: method -> what its fit cost, or one report a seed, of which means are taken. extra: method -> metrics
    that other passes measured (ability/*, lifecycle/*), which replace the "not run" entries.
    """
    groups = by_method(turns)
    names = list(dict.fromkeys((*groups, *(record.method for record in costs))))
    methods: dict[str, dict[str, Any]] = {}
    for name in names:
        records = groups.get(name, [])
        if not records:
            raise RecordError(f"method {name!r} has timings but no turns: its retention pass is missing")
        metrics = retention_metrics(records)
        metrics |= unknown_metrics(records, groups.get(NO_MEMORY, []))
        path = ledger.memory_path(records)
        metrics |= ledger_metrics(records, path)
        metrics |= cued_and_uncued_metrics(records, path)
        timed = [record for record in costs if record.method == name]
        metrics |= cost_metrics(timed, _as_sequence(fit.get(name)))
        metrics |= structure_metrics(records)
        metrics |= {key: missing(reason) for key, reason in NOT_RUN.items()}
        metrics |= (extra or {}).get(name, {})
        methods[name] = {key: metric.as_dict() for key, metric in metrics.items()}
    _fill_up(methods)
    seeds = sorted({record.seed for record in turns} | {record.seed for record in costs})
    return {
        "task": task,
        "preset": preset,
        "seed": seeds[0] if seeds else None,
        "seeds": seeds,
        "wall_s": wall_s,
        "methods": methods,
        "verdicts": {key: verdict.as_dict() for key, verdict in (verdicts or {}).items()},
    }


def _fill_up(methods: Mapping[str, dict[str, Any]]) -> None:
    """Every method has every metric: one that only others have is there without a value.

    Look-ups at each size of the bank are missing for the reason that growth as a whole is.
    """
    absent = missing("not measured for this method").as_dict()
    for key in dict.fromkeys(key for metrics in methods.values() for key in metrics):
        of_growth = key.startswith("lifecycle/hit_at_1_plus")
        for metrics in methods.values():
            growth = metrics["lifecycle/growth_hit_change"]
            metrics.setdefault(key, growth if of_growth and growth["value"] is None else absent)


COMPARED: dict[str, Callable[[Sequence[TurnRecord]], Sample]] = {
    "retention/accuracy": retention.accuracy,
    "retention/first_ask_cued": lambda records: retention.first_ask(records, cued=True),
    "retention/first_ask_uncued": lambda records: retention.first_ask(records, cued=False),
    "structure/correct_and_well_formed": structure.correct_and_well_formed,
}


def comparisons(
    turns: Sequence[TurnRecord], fraction: float = 0.0, level: float = LEVEL
) -> dict[str, dict[str, Any]]:
    """Every method against every other on the headline metrics, ready for json.dump.

    metric -> "a - b" -> the figures of eval.stats.Difference, the Holm-adjusted p, the outcome, and how many
    more families would tell the two apart. fraction: as in eval.stats.variance_parts; 0 is about rulebooks like
    this one, the share of the rulebook that was drawn about this one. level: as in eval.verdict.compare_pairs.
    """
    groups = by_method(turns)
    found: dict[str, dict[str, Any]] = {}
    for name, metric in COMPARED.items():
        pairs = compare_pairs({method: metric(records) for method, records in groups.items()}, fraction, level)
        found[name] = {
            f"{a} - {b}": {
                **asdict(pair.difference),
                "p_holm": pair.p_holm,
                "outcome": pair.outcome,
                "families_needed": pair.families_needed,
            }
            for (a, b), pair in pairs.items()
        }
    return found
