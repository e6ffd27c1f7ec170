"""report.md: what was compared and what came out, for a person who reads one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.records import TurnRecord
from eval.retention import correct
from reports import tables
from reports.base import Comparison, Verdict, facts, shown_settings, verdicts
from reports.failures import KINDS, Failure, failures, pick
from reports.figures import save_figures
from reports.given import few_steps, given
from reports.head import head
from reports.metric_names import GROUPS, ROWS, Row
from reports.text import md, md_table
from tasks.files import write_whole

FAILURES_PER_METHOD = 3
_LONGEST = 400  # characters of one quoted text


def report(comparison: Comparison, figures: Iterable[Path] = ()) -> str:
    """The whole of report.md. `figures` are paths relative to it, in the order shown."""
    summary = comparison.summary
    parts = [
        f"# {md(', '.join(comparison.methods))} on {md(str(summary.get('task', '')))}",
        _answer(comparison),
        "## Verdicts\n\n" + verdicts_markdown(summary),
        "## What was compared\n\n" + _facts(comparison),
        _section("Comparison", tables.comparison(summary)),
        "What each row means:\n\n" + _meanings(tables.comparison(summary).rows),
        _pairs(comparison.pairs, tables.corner(summary)),
        _section("Retention by distance", tables.retention_by_distance(summary), _DISTANCE_WORDS),
    ]
    images = {path.stem: f"![{md(path.stem.replace('_', ' '))}]({path.as_posix()})" for path in figures}
    parts += [images.get(name, "") for name in ("retention_by_distance", "retention_by_turn")]
    apart = tables.cued_apart(summary)
    parts.append(_section(apart.title, apart, tables.SPLIT_WORDS) if apart.rows else "")
    for name, heading in GROUPS.items():
        table = tables.group(summary, name)
        if len(table.frame):
            parts.append(_section(heading, table))
            parts.append("" if table.empty else _meanings(r for r in table.rows if r.level != "headline"))
            parts += [images.get(figure, "") for figure in _IN_GROUP.get(name, (name,))]
        if name == "cost":
            parts.append(_break_even(summary))
    parts.append(_failures(comparison))
    parts.append(_given(comparison))
    parts.append(_configuration(comparison.config))
    return "\n\n".join(part for part in parts if part) + "\n"


# Figures that stand in the section of a group; elsewhere the figure has the group's name.
_IN_GROUP: dict[str, tuple[str, ...]] = {
    "cost": ("cost_against_retention", "latency_by_stage", "cost_of_pass"),
}
_DISTANCE_WORDS = (
    "d is the number of turns in between: of other talk before a first ask, or since the fact was asked "
    "before. First asks carry the claim; a re-ask can be answered by copying the history."
)


def write_report(comparison: Comparison) -> Path:
    """Writes report.md, tables/ and figures/*.svg into the run folder; returns report.md."""
    run_dir = comparison.run_dir
    figures = save_figures(comparison.summary, run_dir / "figures", comparison.by_turn)
    tables.write_csv(comparison.summary, run_dir / "tables")
    tables.write_latex(comparison.summary, run_dir / "tables")
    path = run_dir / "report.md"
    write_whole(path, report(comparison, [f.relative_to(run_dir) for f in figures]))
    return path


def verdicts_markdown(summary: Mapping[str, Any]) -> str:
    """One line a hypothesis: the outcome in bold, the claim, the numbers behind it."""
    found = verdicts(summary)
    if not found:
        return "No hypothesis was judged in this run."
    return "\n".join(f"- {_verdict(verdict)}" for verdict in found)


def _verdict(verdict: Verdict) -> str:
    claim = f": {md(verdict.claim)}" if verdict.claim else ""
    reason = f" ({md(verdict.reason)})" if verdict.reason else ""
    return f"**{md(verdict.key)} {md(verdict.outcome)}**{claim}{reason}"


def _answer(comparison: Comparison) -> str:
    found = head(comparison)
    parts = [f"**{heading}**\n\n" + "\n".join(f"- {md(one)}" for one in found[heading]) for heading in found]
    return "\n\n".join(("## Answer", *parts)) if parts else ""


def _given(comparison: Comparison) -> str:
    frame = given(comparison)
    if frame.columns.empty:
        return ""
    rows = [[md(label), *map(md, cells)] for label, cells in zip(frame.index, frame.to_numpy(), strict=True)]
    table = md_table([str(frame.index.name), *map(md, frame.columns)], rows)
    return "\n\n".join(("## What each method was given", table, *map(md, few_steps(comparison))))


def _section(heading: str, table: tables.Table, words: str = "") -> str:
    """A heading and its table; one sentence where nothing in it was measured."""
    if table.empty:
        reasons = "; ".join(map(md, table.notes)) or "not measured in this run"
        return f"## {heading}\n\nNo figures: {reasons}."
    return "\n\n".join(filter(None, (f"## {heading}", words, tables.to_markdown(table))))


def _meanings(rows: Iterable[Row]) -> str:
    return "\n".join(f"- **{md(row.label)}**: {md(row.meaning)}." for row in rows if row.meaning)


def _pairs(pairs: Mapping[str, Mapping[str, Mapping[str, Any]]], corner: str) -> str:
    """Every method against every other, with the smallest difference that the data could have shown."""
    if not any(pairs.values()):
        return ""
    labels = {row.key: row.label for row in ROWS}
    rows = [
        [
            md(labels.get(metric, metric)),
            md(pair),
            f"{figures['value']:+.2f} [{figures['low']:+.2f}, {figures['high']:+.2f}]",
            f"{figures['p_holm']:.3f}",
            f"{figures['mde']:.2f}",
            md(str(figures["outcome"]).replace("_", " ")),
        ]
        for metric, found in pairs.items()
        for pair, figures in found.items()
    ]
    header = [corner, "methods", "difference", "p (Holm)", "could have shown", "so"]
    words = (
        "Paired by question; families of near-miss clauses are the clusters. *Could have shown* is the smallest "
        "true difference that this data would find 4 times in 5; *no difference shown* is no proof of sameness."
    )
    return f"## Method against method\n\n{words}\n\n{md_table(header, rows, frozenset({2, 3, 4}))}"


def _break_even(summary: Mapping[str, Any]) -> str:
    found = tables.break_evens(summary)
    if not found:
        return ""
    rows = [[md(cell) for cell in found_row.cells] for found_row in found]
    return f"## Break-even\n\n{tables.BREAK_EVEN_WORDS}\n\n{md_table(list(tables.BREAK_EVEN_HEADER), rows)}"


def _facts(comparison: Comparison) -> str:
    return md_table(["item", "value"], [[md(k), md(v, _LONGEST)] for k, v in facts(comparison).items()])


def _failures(comparison: Comparison) -> str:
    """Per method: how many answers were wrong and how, then the worst in full."""
    if not comparison.turns:
        return ""
    parts = ["## Worst failures"]
    for name in comparison.rivals:
        scored = sum(turn.method == name and correct(turn) is not None for turn in comparison.turns)
        found = failures(comparison.turns, name)
        kinds = Counter(failure.rank for failure in found)
        counts = "; ".join(f"{kinds[rank]} {KINDS[rank]}" for rank in sorted(kinds))
        shown = pick(found, FAILURES_PER_METHOD)
        parts.append(f"### {md(name)}")
        parts.append(f"{len(found)} of {scored} scored answers wrong{': ' if counts else ''}{counts}.")
        parts.append("\n".join(map(_failure, shown)))
    return "\n\n".join(filter(None, parts))


def _failure(failure: Failure) -> str:
    record = failure.record
    kind = f"{failure.kind}{': ' if failure.detail else ''}{md(failure.detail)}"
    key = record.qa.answer if record.qa and record.qa.answer else "(no clause covers it: decline)"
    answer = record.answer.final or record.answer.raw
    lines = [
        f"- **{kind}** ({md(_place(record))})",
        f"  - question: {md(record.question, _LONGEST)}",
        f"  - key: {md(key, _LONGEST)}",
        f"  - answer: {md(answer, _LONGEST) or '(empty)'}",
    ]
    for lookup in record.answer.lookups:
        source = md(lookup.memory_id) or "(null memory)"
        lines.append(f"  - looked up: {source}, cosine {lookup.score:.2f}: {md(lookup.text, _LONGEST)}")
    if not record.answer.lookups:
        lines.append("  - looked up: nothing")
    return "\n".join(lines)


def _place(record: TurnRecord) -> str:
    distance = "" if record.distance is None else f", d={record.distance}"
    return f"{record.kind.replace('_', ' ')}{distance}, dialogue {record.dialogue_id}, turn {record.turn}"


def _configuration(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    rows = [[md(key), md(value, _LONGEST)] for key, value in shown_settings(config).items()]
    return "## Configuration\n\n" + md_table(["key", "value"], rows)
