"""report.html: the whole comparison on one page that opens from disk and loads nothing.

The template (templates/report.html.j2) holds the page, this file what stands on it. Text from clauses and
models passes jinja2's autoescape and `reports.text.visible` on its way, whatever it holds; only the
figures, drawn here, are markup. The page forbids scripts and loads to itself (Content-Security-Policy).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.records import TurnRecord
from eval.retention import correct, key_of
from eval.stats import Estimate
from reports import tables
from reports.base import Comparison, Summary, duration, estimate, facts, shown_settings, verdicts
from reports.failures import KINDS, Failure, failures, pick
from reports.figures import draw_all, inline
from reports.given import few_steps, given
from reports.head import head
from reports.metric_names import GROUPS, ROWS, Group, Row
from reports.tables import DASH, Table, format_number
from reports.text import visible
from tasks.files import write_whole

FAILURES_PER_METHOD = 3
_LONGEST = 600  # characters of one quoted text
_OUTCOMES = {"supported": ("yes", "✔"), "refuted": ("no", "✘")}  # style class, sign

_CAPTIONS = {
    "retention_by_distance": "Share of first asks answered right after d turns of other talk, with 95% intervals.",
    "retention_by_turn": "Share of each kind of question answered right at each turn of the dialogues, with 95% "
    "intervals. Turns with few answers (under five, or a quarter of the kind's fullest turn) are left out.",
    "cost_against_retention": "Median seconds of a whole answer against the share answered right, with 95% "
    "intervals; up and left is better.",
    "latency_by_stage": "What the mean seconds of an answer go into, timed one by one.",
    "ledger": "Where answers are lost, step by step, with 95% intervals; a dash is not measured.",
    "structure": "The form of the answers, with 95% intervals; ↓ means lower is better.",
    "lifecycle": "After an update and after forgetting, with 95% intervals; ↓ means lower is better.",
    "ability": "Ordinary tasks before and after the fit, with 95% intervals.",
    "cost_of_pass": "Seconds for one right answer when one fit serves so many questions; dotted: break-even.",
}


@dataclass(frozen=True)
class Shown:
    """An estimate as a cell of the page: the value, its interval and n, or a dash with its reason."""

    value: str
    interval: str = ""
    n: str = ""
    reason: str = ""
    note: int = 0  # number of the footnote that holds the reason


def write_html(comparison: Comparison) -> Path:
    """Writes report.html into the run folder and returns its path."""
    path = comparison.run_dir / "report.html"
    write_whole(path, page(comparison))
    return path


def page(comparison: Comparison) -> str:
    """The whole of report.html."""
    summary = comparison.summary
    found = {name: failures(comparison.turns, name) for name in comparison.rivals if comparison.turns}
    distances, comparison_table = tables.retention_by_distance(summary), tables.comparison(summary)
    apart = tables.cued_apart(summary)
    template = _environment().get_template("report.html.j2")
    return template.render(
        title=f"{', '.join(comparison.methods)} on {summary.get('task') or 'a task'}",
        lead=_lead(comparison),
        head=head(comparison),
        glance=[_glance(summary, name) for name in comparison.methods],
        outcomes=Counter(verdict.outcome for verdict in verdicts(summary)),
        verdicts=[_verdict(verdict.key, verdict) for verdict in verdicts(summary)],
        comparison=_table("comparison", comparison_table),
        meanings=[row for row in comparison_table.rows if row.meaning],
        pairs=_pairs(comparison.pairs),
        distances=_table("distance", distances) if distances.rows else None,
        apart=_table("apart", apart) if apart.rows else None,
        split_words=tables.SPLIT_WORDS,
        groups={name: _group(summary, name) for name in GROUPS},
        group_titles=GROUPS,
        pass_table=_table("pass", tables.build("Cost of pass", summary, _PASS)),
        break_even_header=tables.BREAK_EVEN_HEADER,
        break_even_words=tables.BREAK_EVEN_WORDS,
        break_evens=[pair.cells for pair in tables.break_evens(summary)],
        figures=_figures(comparison),
        failure_counts=[_counts(comparison.turns, name, found[name]) for name in found],
        failures=_failures(comparison.turns, found, comparison.methods),
        given=_given(comparison),
        facts=facts(comparison),
        config={key: visible(value, _LONGEST) for key, value in shown_settings(comparison.config).items()},
        run=comparison.run_dir.name,
    )


def _given(comparison: Comparison) -> dict[str, Any]:
    """The table of `reports.given` as the template takes it."""
    frame = given(comparison)
    return {
        "corner": frame.index.name,
        "columns": list(frame.columns),
        "rows": [(label, list(cells)) for label, cells in zip(frame.index, frame.to_numpy(), strict=True)],
        "words": few_steps(comparison),
    }


def _environment() -> Environment:
    """Jinja2 with every text made visible and escaped."""

    def shown(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# ---------------------------------------------------------------------------------------- verdicts


def _lead(comparison: Comparison) -> str:
    """The line below the title: how much was done, on what."""
    found, summary = facts(comparison), comparison.summary
    parts = [f"preset {summary['preset']}" if summary.get("preset") else ""]
    parts += [f"clauses: {found['clauses']}" if "clauses" in found else ""]
    parts += [f"dialogues: {found['dialogues']}" if "dialogues" in found else ""]
    parts += [f"seeds: {found['seeds']}" if found.get("seeds") else ""]
    parts += [found.get("device", ""), duration(summary.get("wall_s"))]
    return " · ".join(part for part in parts if part)


def _glance(summary: Summary, name: str) -> tuple[str, str]:
    """A method and its three headline figures in a sentence."""
    right = estimate(summary, name, "retention/accuracy")
    seconds = estimate(summary, name, "cost/latency_p50_s")
    fit = estimate(summary, name, "cost/fit_s")
    parts = []
    if right.value is not None:
        parts.append(f"{right.value:.0%} of {right.n} scored answers right{_percent_interval(right)}")
    if seconds.value is not None:
        parts.append(f"{format_number(seconds.value, 's')} s for a whole answer (median)")
    if fit.value is not None:
        parts.append(f"{duration(fit.value)} to get the knowledge in")
    return name, "; ".join(parts) or "not measured in this run"


def _percent_interval(cell: Estimate) -> str:
    return "" if cell.low is None or cell.high is None else f" ({cell.low:.0%} to {cell.high:.0%})"


def _verdict(key: str, verdict: Any) -> dict[str, str]:
    name, _, variant = key.partition("/")
    style, sign = _OUTCOMES.get(verdict.outcome, ("open", "○"))
    return {
        "name": f"{name} ({variant})" if variant else name,
        "style": style,
        "sign": sign,
        "outcome": verdict.outcome,
        "claim": verdict.claim,
        "reason": verdict.reason,
    }


# ---------------------------------------------------------------------------------------- tables

_PASS = tuple(
    row for row in ROWS if row.key.startswith(("cost/per_correct_s_", "cost/fit_s", "cost/latency_mean"))
)


def _group(summary: Summary, name: Group) -> dict[str, Any]:
    """A group's table; the rows that are known for it, all dashes, where the summary has none."""
    table = tables.group(summary, name)
    if not table.rows:
        table = tables.build(GROUPS[name], summary, [row for row in ROWS if row.group == name])
    return _table(name, table)


def _table(name: str, table: Table) -> dict[str, Any]:
    """A table as the template takes it. `n` is a column where all methods share it."""
    numbers = {reason: number for number, reason in enumerate(table.notes, start=1)}
    shared = list(table.frame["n"]) if "n" in table.frame.columns else []
    methods = [column for column in table.frame.columns if column != "n" or not shared]
    rows = [
        {"row": row, "cells": [_cell(cell, row, numbers, not (shared and shared[at])) for cell in cells]}
        | {"n": shared[at] if shared else ""}
        for at, (row, cells) in enumerate(zip(table.rows, table.cells, strict=True))
    ]
    reasons = "; ".join(table.notes) or "not measured in this run"
    empty = f"Not measured in this run: {reasons}." if table.empty else ""
    return {
        "name": name,
        "title": table.title,
        "corner": str(table.frame.index.name or "metric"),
        "methods": methods,
        "rows": rows,
        "notes": table.notes,
        "shared": bool(shared),
        "empty": empty,
    }


def _cell(cell: Estimate, row: Row, numbers: Mapping[str, int], with_n: bool) -> Shown:
    if cell.value is None:
        return Shown(DASH, reason=cell.reason, note=numbers[cell.reason])
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"[{format_number(cell.low, row.unit)}, {format_number(cell.high, row.unit)}]"
    return Shown(format_number(cell.value, row.unit), interval, f"n={cell.n}" if with_n and cell.n else "")


def _pairs(pairs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """Every method against every other, with the smallest difference that the data could have shown."""
    labels = {row.key: row.label for row in ROWS}
    return [
        [
            labels.get(metric, metric),
            pair,
            f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]",
            f"{found['p_holm']:.3f}",
            f"{found['mde']:.2f}",
            str(found["outcome"]).replace("_", " "),
        ]
        for metric, of_pairs in pairs.items()
        for pair, found in of_pairs.items()
    ]


def _figures(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """name -> the figure as an element of the page, and its caption."""
    return {
        name: {"svg": Markup(inline(text, name, _CAPTIONS[name])), "caption": _CAPTIONS[name]}
        for name, text in draw_all(comparison.summary, comparison.by_turn).items()
    }


# ---------------------------------------------------------------------------------------- failures


def _counts(turns: Iterable[TurnRecord], name: str, found: Sequence[Failure]) -> dict[str, Any]:
    """How many answers of a method were wrong, and in which ways, worst first."""
    kinds = Counter(failure.rank for failure in found)
    return {
        "method": name,
        "scored": sum(turn.method == name and key_of(turn) is not None for turn in turns),
        "wrong": len(found),
        "kinds": [(kinds[rank], KINDS[rank]) for rank in sorted(kinds)],
    }


def _failures(
    turns: Iterable[TurnRecord], found: Mapping[str, Sequence[Failure]], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """The worst failures of each method, beside what every method said to the same question."""
    answers: dict[tuple[int, str, int], dict[str, TurnRecord]] = defaultdict(dict)
    for turn in turns:
        answers[turn.seed, turn.dialogue_id, turn.turn][turn.method] = turn
    shown: dict[tuple[int, str, int], dict[str, Any]] = {}
    for of_method in found.values():
        for failure in pick(of_method, FAILURES_PER_METHOD):
            record = failure.record
            place = record.seed, record.dialogue_id, record.turn
            shown.setdefault(place, _failure(failure, answers[place], methods))
    return list(shown.values())


def _failure(failure: Failure, answers: Mapping[str, TurnRecord], methods: Iterable[str]) -> dict[str, Any]:
    record = failure.record
    qa = record.qa
    distance = "" if record.distance is None else f", d={record.distance}"
    names = [record.method, *(name for name in methods if name != record.method and name in answers)]
    return {
        "method": record.method,
        "kind": failure.kind + (f": {failure.detail}" if failure.detail else ""),
        "place": f"{record.kind.replace('_', ' ')}{distance}, dialogue {record.dialogue_id}, "
        f"turn {record.turn}, seed {record.seed}",
        "question": visible(record.question, _LONGEST),
        "key": visible(qa.answer, _LONGEST) if qa and qa.answer else "",
        "clause": visible(record.memory_text, _LONGEST),
        "answers": [_answer(answers[name]) for name in names],
    }


def _answer(record: TurnRecord) -> dict[str, Any]:
    gold = record.qa.memory_ids if record.qa else ()
    used = {lookup.memory_id for lookup in record.answer.lookups}
    return {
        "method": record.method,
        "right": correct(record),
        "final": visible(record.answer.final, _LONGEST),
        "raw": "" if record.answer.final.strip() else visible(record.answer.raw, _LONGEST),
        "lookups": [
            {
                "id": lookup.memory_id,
                "gold": lookup.memory_id in gold,
                "score": f"{lookup.score:.2f}",
                "text": visible(lookup.text, _LONGEST),
                "others": [(other, f"{score:.2f}") for other, score in lookup.candidates if other not in used][:3],
            }
            for lookup in record.answer.lookups
        ],
    }
