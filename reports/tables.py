"""The tables of a comparison: what a row is called, what it means, and how a cell is written.

Each table is a pure function of the summary (summary.json, DESIGN section 7). A cell is the value,
its interval and its number of items; what could not be measured is a dash with its reason below the
table. Metrics that have no row here still reach `metrics_frame`, so nothing measured is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from eval.cost import break_even, cost_of_pass
from eval.stats import Estimate
from reports.base import Summary, estimate, metric_keys
from reports.metric_names import GROUPS, ROWS, Group, Level, Row, Unit
from reports.text import latex, md, md_table
from tasks.files import write_whole

DASH = "—"
# One of the pair is measured, by device: the other is not missing.
_EITHER_OR = ("cost/peak_vram_bytes", "cost/peak_rss_bytes")
_KNOWN = {row.key: row for row in ROWS}
_SPLIT = re.compile(r"(?P<key>(?:retention|ledger)/\w+?)_(?P<split>cued|uncued)")
_DISTANCE = re.compile(r"retention/(?:(?P<kind>ratio|re_ask)_)?d(?P<distance>\d+)")


@dataclass(frozen=True)
class Table:
    """A table ready to show: plain cells, and the reasons for its dashes."""

    title: str
    frame: pd.DataFrame  # index: row labels; columns: methods, then "n" where all methods share it
    notes: tuple[str, ...] = ()  # note k explains the cells that end in "(k)"
    rows: tuple[Row, ...] = ()
    empty: bool = False  # not one cell was measured
    cells: tuple[tuple[Estimate, ...], ...] = ()  # what the frame shows, a row a metric, a cell a method


# ---------------------------------------------------------------------------------------- cells


def format_number(value: float, unit: Unit) -> str:
    """Shares to two decimals; all else to three digits, in ms or MiB where the unit says so, 12.3k from 10,000."""
    if unit == "share":
        return f"{value:.2f}".replace("-0.00", "0.00")
    scaled = value * {"ms": 1e3, "bytes": 2**-20, "gflops": 1e-9}.get(unit, 1.0)
    size = abs(scaled)
    if unit == "tokens" and size >= 9_999.5:
        return f"{_three_digits(scaled / 1e6)}M" if size >= 999_500 else f"{_three_digits(scaled / 1e3)}k"
    return _three_digits(scaled)


def _three_digits(value: float) -> str:
    """Three significant digits without an exponent: whole from 100 on, five decimals at most."""
    for decimals, least in enumerate((99.95, 9.995, 0.9995, 0.09995, 0.009995)):
        if abs(value) >= least:
            return f"{value:.{decimals}f}"
    return f"{value:.5f}" if value else "0"


def format_cell(cell: Estimate, unit: Unit = "share", *, with_n: bool = True) -> str:
    """`0.94 [0.88, 0.98] n=64`; the parts that are unknown are left out, an unknown value is a dash."""
    if cell.value is None:
        return DASH
    text = format_number(cell.value, unit)
    if cell.low is not None and cell.high is not None:
        text += f" [{format_number(cell.low, unit)}, {format_number(cell.high, unit)}]"
    if with_n and cell.n:
        text += f" n={cell.n}"
    return text


# --------------------------------------------------------------------------------------- tables


def build(title: str, summary: Summary, rows: Sequence[Row], methods: Sequence[str] | None = None) -> Table:
    """Rows of metrics, columns of methods. n has its own column where every method has the same."""
    names = list(methods or summary["methods"])
    cells = {row: [estimate(summary, name, row.key) for name in names] for row in rows}
    shared = {row: _shared_n(found) for row, found in cells.items()}
    notes: dict[str, int] = {}
    body = []
    for row, found in cells.items():
        texts = []
        for cell in found:
            text = format_cell(cell, row.unit, with_n=shared[row] is None)
            if cell.value is None:
                text += f" ({notes.setdefault(cell.reason, len(notes) + 1)})"
            texts.append(text)
        body.append([*texts, "" if shared[row] is None else str(shared[row])])
    index = pd.Index([row.label for row in rows], name=corner(summary))
    frame = pd.DataFrame(body, index=index, columns=[*names, "n"], dtype=str)
    if rows and not any(frame["n"]):
        frame = frame.drop(columns="n")
    empty = all(cell.value is None for found in cells.values() for cell in found)
    return Table(title, frame, tuple(notes), tuple(rows), empty, tuple(map(tuple, cells.values())))


def corner(summary: Summary) -> str:
    """What stands above the row labels of every table: it says so where no person wrote the questions."""
    return "metric (machine-made questions)" if summary.get("machine_made") else "metric"


def _shared_n(cells: Iterable[Estimate]) -> int | None:
    sizes = {cell.n for cell in cells if cell.value is not None and cell.n}
    return sizes.pop() if len(sizes) == 1 else None


def comparison(summary: Summary, methods: Sequence[str] | None = None) -> Table:
    """The headline metrics, side by side; one that no method has is a row of dashes."""
    rows = [row for row in ROWS if row.level == "headline" and row.key not in _unmeasured_twin(summary)]
    return build("Comparison", summary, rows, methods)


def _unmeasured_twin(summary: Summary) -> set[str]:
    """The kind of peak memory that this device does not have, where the other one was measured, and what goes
    with it."""
    measured = {
        key for key in _EITHER_OR for name in summary["methods"] if estimate(summary, name, key).value is not None
    }
    hidden = set(_EITHER_OR) - (measured or {_EITHER_OR[0]})
    return hidden | ({"cost/reserved_vram_bytes"} if "cost/peak_vram_bytes" in hidden else set())


def distances(summary: Summary) -> list[tuple[str, int, Row]]:
    """The metrics by distance, sorted: (kind, d, row). Kind "" is the headline, the first asks."""
    labels = {"": "d={0}", "ratio": "d={0} / d=0", "re_ask": "re-ask, d={0}"}
    found = []
    for key in metric_keys(summary):
        match = _DISTANCE.fullmatch(key)
        if match:
            kind, d = match["kind"] or "", int(match["distance"])
            found.append((kind, d, Row(key, labels[kind].format(d), "share", "retention", "", "short")))
    return sorted(found, key=lambda entry: (list(labels).index(entry[0]), entry[1]))


def retention_by_distance(summary: Summary, methods: Sequence[str] | None = None) -> Table:
    """Share right by d, the turns between: first asks, their share of what d=0 gets, re-asks."""
    return build("Retention by distance", summary, [row for *_, row in distances(summary)], methods)


SPLIT_WORDS = (
    "A clause is cued where training questions about it existed, and uncued where only its raw text was given, as "
    "is the case for most rulebooks."
)


def cued_apart(summary: Summary, methods: Sequence[str] | None = None) -> Table:
    """The two splits below each other, a metric after the other: first asks and their distances, then the rest."""
    return build("Cued and uncued apart", summary, split_rows(summary), methods)


def split_rows(summary: Summary) -> list[Row]:
    """The rows of the metrics that are there for cued and for uncued clauses, in the order of the summary."""
    split: dict[str, dict[str, Row]] = {}
    for key in metric_keys(summary):
        match = _SPLIT.fullmatch(key)
        if match:
            whole = _KNOWN.get(match["key"])
            label = whole.label if whole else match["key"].partition("/")[2].replace("_", " ")
            distance = _DISTANCE.fullmatch(match["key"])
            label = f"first ask, d={distance['distance']}" if distance else label
            row = Row(key, f"{label}, {match['split']}", "share", "ledger", "")
            split.setdefault(match["key"], {})[match["split"]] = _KNOWN.get(key, row)
    return [row for rows in split.values() for row in rows.values()]


def group(summary: Summary, name: Group, methods: Sequence[str] | None = None) -> Table:
    """All that was measured under one heading."""
    return build(GROUPS[name], summary, group_rows(summary, name), methods)


def group_rows(summary: Summary, name: Group, levels: Collection[Level] | None = None) -> list[Row]:
    """The rows of a group in the order of ROWS, of all levels by default; then metrics unknown to ROWS."""
    present = metric_keys(summary)
    hidden = _unmeasured_twin(summary)
    known = [row for row in ROWS if row.group == name and row.key in present and row.key not in hidden]
    if levels is not None:
        return [row for row in known if row.level in levels]
    others = [
        Row(key, key.removeprefix(f"{name}/").replace("_", " "), _unit_of(key), name, "")
        for key in present
        if key.startswith(f"{name}/")
        and key not in _KNOWN
        and not (_DISTANCE.fullmatch(key) or _SPLIT.fullmatch(key))
    ]
    return known + others


def _unit_of(key: str) -> Unit:
    """Units stand in names (STYLE): the unit of a metric that ROWS does not know."""
    if key.endswith("_s"):
        return "s"
    if key.endswith(("_bytes", "/bytes")):
        return "bytes"
    if key.endswith("tokens"):
        return "tokens"
    return "number" if key.startswith("cost/") else "share"


def metrics_frame(summary: Summary) -> pd.DataFrame:
    """Every metric of every method, long: method, metric, value, low, high, n, reason."""
    rows = []
    for method, metrics in summary["methods"].items():
        for key in metrics:
            cell = estimate(summary, method, key)
            rows.append((method, key, cell.value, cell.low, cell.high, cell.n, cell.reason))
    columns = ["method", "metric", "value", "low", "high", "n", "reason"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"value": float, "low": float, "high": float, "n": "Int64"})


# ---------------------------------------------------------------------------------------- output


def to_markdown(table: Table, *, notes: bool = True) -> str:
    """The table as Markdown, its footnotes below it.

    Labels, method names and reasons may hold any character; cells are `format_cell`'s and hold none.
    """
    columns = [str(column) for column in table.frame.columns]
    header = [md(str(table.frame.index.name or "")), *map(md, columns)]
    body = [
        [md(str(label)), *map(str, values)]
        for label, values in zip(table.frame.index, table.frame.itertuples(index=False), strict=True)
    ]
    text = md_table(header, body, right=frozenset(range(1, len(header))))
    return f"{text}\n\n{notes_markdown(table)}".rstrip() if notes else text


def notes_markdown(table: Table) -> str:
    """`(1) reason` lines for the dashes of a table."""
    return "\n".join(f"- ({number}) {md(reason)}" for number, reason in enumerate(table.notes, start=1))


def write_csv(summary: Summary, folder: Path) -> list[Path]:
    """metrics.csv (every number, unrounded) and one CSV a table (as shown). Read them as UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "metrics.csv"]
    write_whole(paths[0], metrics_frame(summary).to_csv(index=False))
    for name, frame in _frames(summary).items():
        paths.append(folder / f"{name}.csv")
        write_whole(paths[-1], frame.to_csv())
    return paths


def _shown(summary: Summary) -> dict[str, Table]:
    """The tables of metrics by file name, those without a row left out."""
    shown = {"comparison": comparison(summary), "retention_by_distance": retention_by_distance(summary)}
    shown |= {"cued_and_uncued": cued_apart(summary)} | {name: group(summary, name) for name in GROUPS}
    return {name: table for name, table in shown.items() if len(table.frame)}


def _frames(summary: Summary) -> dict[str, pd.DataFrame]:
    """Every table that is written as a file, by file name."""
    frames = {name: table.frame for name, table in _shown(summary).items()}
    found = break_evens(summary)
    if found:
        frame = pd.DataFrame([row.cells for row in found], columns=list(BREAK_EVEN_HEADER), dtype=str)
        frames["break_even"] = frame.set_index(BREAK_EVEN_HEADER[0])
    return frames


def write_latex(summary: Summary, folder: Path) -> list[Path]:
    """The same tables as LaTeX, to be taken up with \\input. They need the package booktabs."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, paths = _shown(summary), []
    for name, frame in _frames(summary).items():
        paths.append(folder / f"{name}.tex")
        notes = shown[name].notes if name in shown else ()
        write_whole(paths[-1], to_latex(frame, notes))
    return paths


def to_latex(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A tabular of booktabs with its footnotes below; every text in it is literal."""
    header = [str(frame.index.name or ""), *map(str, frame.columns)]
    body = [
        [str(label), *map(str, cells)]
        for label, cells in zip(frame.index, frame.itertuples(index=False), strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        text = " & ".join(latex(cell) or "~" for cell in cells) + r" \\"
        return f"{{}}{text}" if text[0] in "[*" else text  # else an argument of the line break before it

    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        line(header),
        r"\midrule",
        *map(line, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines += [
        rf"\par {{\footnotesize ({number}) {latex(note)}\par}}" for number, note in enumerate(notes, start=1)
    ]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------ break-even

BREAK_EVEN_HEADER = ("methods", "cheaper at first", "break-even", "cheaper from there on")
BREAK_EVEN_WORDS = (
    "From how many questions served by one fit on the other method costs fewer seconds for a right answer: "
    "(fit / k + mean latency) / share right, from the point estimates."
)


@dataclass(frozen=True)
class BreakEven:
    """Which of two methods is cheaper for a right answer, and from how many questions on the other one is."""

    pair: tuple[str, str]
    first: str = ""  # cheaper for few questions; the same as `then` where it always is
    then: str = ""  # cheaper for many
    questions: float | None = None
    reason: str = ""  # why nothing can be said

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As shown under BREAK_EVEN_HEADER."""
        if self.questions is None:
            at = f"{DASH} ({self.reason})" if self.reason else f"{DASH} (at every number of questions)"
            return ", ".join(self.pair), self.first or DASH, at, self.then or DASH
        return ", ".join(self.pair), self.first, f"{math.ceil(self.questions):,} questions", self.then


def break_evens(summary: Summary) -> list[BreakEven]:
    """One entry a pair of methods; none where no method was timed."""
    costs = {name: _pass_of(summary, name) for name in summary["methods"]}
    if all(isinstance(cost, str) for cost in costs.values()):
        return []
    found = []
    for a, b in combinations(costs, 2):
        of_a, of_b = costs[a], costs[b]
        if isinstance(of_a, str) or isinstance(of_b, str):
            reason = f"{a}: {of_a}" if isinstance(of_a, str) else f"{b}: {of_b}"
            found.append(BreakEven((a, b), reason=reason))
            continue
        questions = break_even(*of_a, *of_b)
        first, other = (a, b) if (cost_of_pass(*of_a, 1) or 0) <= (cost_of_pass(*of_b, 1) or 0) else (b, a)
        if questions is None or questions <= 1:
            found.append(BreakEven((a, b), first, first))
        else:
            found.append(BreakEven((a, b), first, other, questions))
    return found


def _pass_of(summary: Summary, method: str) -> tuple[float, float, float] | str:
    """(fit s, mean latency s, share right) of a method, or why it has no cost of pass."""
    keys = ("cost/fit_s", "cost/latency_mean_s", "cost/accuracy")
    values = []
    for key in keys:
        cell = estimate(summary, method, key)
        if cell.value is None:
            return cell.reason
        values.append(cell.value)
    return (values[0], values[1], values[2]) if values[2] > 0 else "no right answer"
