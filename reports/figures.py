"""The figures: retention by distance and by turn, cost against retention, and bars of shares and times.

Drawn without pyplot (no global state, no display), in the colours of Okabe and Ito, which stay apart
for colour-blind readers, with a marker or a hatch of its own for each method, so that they also stay
apart in a black-and-white print. The same summary gives the same bytes of SVG.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.cost import AMORTISED_OVER, STAGES, cost_of_pass
from eval.stats import Estimate
from reports.base import Summary, estimate, metric_keys
from reports.metric_names import Group, Row
from reports.tables import DASH, break_evens, distances, format_number, group_rows
from reports.text import one_line
from tasks.base import TurnKind
from tasks.files import write_whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "///", "\\\\\\", "xxx", "---", "|||", "+++", "//////")
LINES = ("-", "--", "-.", ":")
ByTurn = Mapping[str, Mapping[TurnKind, Mapping[int, Estimate]]]  # method -> kind of turn -> turn -> share right
FEW = 5  # answers of a kind at a turn: fewer make no point of a curve
_WIDTH, _WIDE = 5.6, 6.4  # inches
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small files, searchable
    "svg.hashsalt": "recallbench",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@rc_context(STYLE)
def retention_by_distance(summary: Summary) -> Figure | None:
    """Share right (with its interval) against d, a line a method. None where no distance was measured."""
    by_distance = {d: row.key for kind, d, row in distances(summary) if not kind}
    measured = any(
        estimate(summary, name, key).value is not None
        for name in summary["methods"]
        for key in by_distance.values()
    )
    if not measured:
        return None
    figure, axes = axes_of(
        "turns of other talk before the question (d)",
        "first asks right (share, 95% interval)",
        _size(summary["methods"]),
    )
    places = sorted(by_distance)
    names = list(summary["methods"])
    for index, name in enumerate(names):
        cells = [estimate(summary, name, by_distance[d]) for d in places]
        shift = 0.06 * (index - (len(names) - 1) / 2)  # intervals side by side, not on top of each other
        points = [(at + shift, cell) for at, cell in enumerate(cells) if cell.value is not None]
        if points:
            _draw(axes, index, _label(name, [cell for _, cell in points]), points)
    axes.set_xticks(range(len(places)), [str(d) for d in places])
    axes.set_ylim(-0.02, 1.02)
    legend_below(figure)
    return figure


@rc_context(STYLE)
def cost_against_retention(summary: Summary) -> Figure | None:
    """Share right against median seconds for a whole answer; up and left is better."""
    figure, axes = axes_of(
        "seconds for a whole answer (median, batch 1)",
        "answers right (share, 95% interval)",
        _size(summary["methods"]),
    )
    drawn: list[tuple[float, float]] = []
    for index, name in enumerate(summary["methods"]):
        right = estimate(summary, name, "retention/accuracy")
        seconds = estimate(summary, name, "cost/latency_p50_s")
        if right.value is None or seconds.value is None:
            continue
        label = f"{plain_name(name)} ({right.n} answers, {seconds.n} timings)"
        axes.errorbar(
            [seconds.value],
            [right.value],
            xerr=spread([seconds]),
            yerr=spread([right]),
            **_look(index),
            linestyle="none",
            label=label,
        )
        drawn.append((seconds.value, right.value))
    if not drawn:
        return None
    front = pareto_front(drawn)
    if len(front) > 1:
        label = "no other is both faster and better"
        axes.plot(*zip(*front, strict=True), color="#8C8C8C", linestyle=":", linewidth=1, zorder=0, label=label)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    legend_below(figure)
    return figure


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, gain) that no other beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


@rc_context(STYLE)
def retention_by_turn(by_turn: ByTurn) -> Figure | None:
    """Share right (with its interval) against the turn of the dialogue: a panel a kind of turn, a line a method.

    Turns with under a quarter of the answers of the kind's fullest one are left out, and those with under FEW.
    None where no kind was answered at more than one turn.
    """
    by_turn = {
        name: {
            kind: {turn: cell for turn, cell in cells.items() if cell.n >= FEW} for kind, cells in curves.items()
        }
        for name, curves in by_turn.items()
    }
    several = {kind for curves in by_turn.values() for kind, cells in curves.items() if len(cells) > 1}
    kinds = [kind for kind in get_args(TurnKind) if kind in several]
    if not kinds:
        return None
    rows = math.ceil(len(kinds) / 2)
    figure = Figure(figsize=(_WIDE, 1.6 * rows + 0.3 * len(by_turn) + 0.4), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).flat
    named: set[str] = set()
    for kind, axes in itertools.zip_longest(kinds, panels):
        if kind is None:
            axes.set_visible(False)
            continue
        curves = {name: kinds_of.get(kind, {}) for name, kinds_of in by_turn.items()}
        least = max(cell.n for cells in curves.values() for cell in cells.values()) / 4
        shown: list[Estimate] = []
        for index, (name, cells) in enumerate(curves.items()):
            shift = 0.06 * (index - (len(curves) - 1) / 2)
            kept = [turn for turn, cell in sorted(cells.items()) if cell.value is not None and cell.n >= least]
            if kept:
                label = "_nolegend_" if name in named else plain_name(name)
                _draw(axes, index, label, [(turn + shift, cells[turn]) for turn in kept])
                named.add(name)
                shown += [cells[turn] for turn in kept]
        axes.set_title(_label(kind.replace("_", " "), shown), fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-0.02, 1.02)
        axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    figure.supxlabel("turn of the dialogue (0 is the first)", fontsize="medium")
    figure.supylabel("answers right (share, 95% interval)", fontsize="medium")
    legend_below(figure)
    return figure


@rc_context(STYLE)
def share_bars(summary: Summary, group: Group) -> Figure | None:
    """Every share of a group as bars, a bar a method, with its interval, value and n."""
    rows = [
        row
        for row in group_rows(summary, group)
        if row.unit == "share"
        and not row.key.endswith("change")  # in [-1, 1]
        and any(estimate(summary, name, row.key).value is not None for name in summary["methods"])
    ]
    if not rows:
        return None
    names = list(summary["methods"])
    height = 0.16 * len(names) * len(rows) + 0.12 * len(rows) + 0.9
    figure, axes = axes_of("share (95% interval)", "", (_WIDE, height))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", linewidth=0.5, alpha=0.4)
    step = 0.84 / len(names)
    for index, name in enumerate(names):
        cells = [estimate(summary, name, row.key) for row in rows]
        places = np.arange(len(rows)) + step * (index - (len(names) - 1) / 2)
        axes.barh(
            places,
            [cell.value or 0.0 for cell in cells],
            height=step * 0.92,
            xerr=spread(cells),
            label=plain_name(name),
            **_fill(index),
            error_kw={"linewidth": 0.8, "capsize": 1.5, "ecolor": "#000000"},
        )
        for place, cell in zip(places, cells, strict=True):
            text = DASH if cell.value is None else f"{format_number(cell.value, 'share')}  n={cell.n}"
            axes.text(1.03, float(place), text, va="center", fontsize=6.5)
    axes.set_xlim(0, 1.0)
    axes.set_yticks(range(len(rows)), [_bar_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    legend_below(figure, 4)
    return figure


@rc_context(STYLE)
def latency_by_stage(summary: Summary) -> Figure | None:
    """Mean seconds of an answer, split into what they went into; a bar a method."""
    named = (key.removeprefix("cost/stage_").removesuffix("_s") for key in metric_keys(summary) if _is_stage(key))
    stages = [*STAGES, *(stage for stage in named if stage not in (*STAGES, "rest")), "rest"]
    seconds = {
        name: [estimate(summary, name, f"cost/stage_{stage}_s") for stage in stages] for name in summary["methods"]
    }
    timed = [name for name, cells in seconds.items() if any(cell.value is not None for cell in cells)]
    if not timed:
        return None
    figure, axes = axes_of("mean seconds of an answer (batch 1)", "", (_WIDE, 0.42 * len(timed) + 1.3))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", linewidth=0.5, alpha=0.4)
    ends = np.zeros(len(timed))
    for index, stage in enumerate(stages):
        widths = np.array([seconds[name][index].value or 0.0 for name in timed])
        if widths.any():
            label = plain_name(stage.replace("_", " "))
            axes.barh(range(len(timed)), widths, left=ends, height=0.62, label=label, **_fill(index))
            ends += widths
    for place, end in enumerate(ends):
        axes.text(end, place, f" {format_number(float(end), 's')} s", va="center", fontsize=7.5)
    sizes = [max(cell.n for cell in seconds[name]) for name in timed]
    axes.set_xlim(0, float(ends.max()) * 1.14)
    axes.set_yticks(
        range(len(timed)), [f"{plain_name(n)} (n={size})" for n, size in zip(timed, sizes, strict=True)]
    )
    axes.invert_yaxis()
    legend_below(figure, 3)
    return figure


def _is_stage(key: str) -> bool:
    return re.fullmatch(r"cost/stage_\w+_s", key) is not None


@rc_context(STYLE)
def cost_of_pass_by_questions(summary: Summary) -> Figure | None:
    """Seconds for one right answer against the questions that one fit serves; lines cross at the break-even."""
    keys = ("cost/fit_s", "cost/latency_mean_s", "cost/accuracy")
    crossings = [found.questions for found in break_evens(summary) if found.questions is not None]
    last = max([AMORTISED_OVER[-1], *(min(3 * k, 1e6) for k in crossings)])
    questions = np.geomspace(1, last, 80)
    figure, axes = axes_of(
        "questions served by one fit", "seconds for a right answer (95% interval)", _size(summary["methods"])
    )
    drawn = False
    for index, name in enumerate(summary["methods"]):
        fit, latency, right = (estimate(summary, name, key) for key in keys)
        if fit.value is None or latency.value is None or not right.value:
            continue
        costs = [cost_of_pass(fit.value, latency.value, right.value, k) or 0.0 for k in questions]
        look = _look(index)
        axes.plot(questions, costs, color=look["color"], linewidth=1.2, linestyle=LINES[index % len(LINES)])
        points = [(float(k), estimate(summary, name, f"cost/per_correct_s_k{k}")) for k in AMORTISED_OVER]
        points = [(k, cell) for k, cell in points if cell.value is not None]
        if points:
            label = f"{plain_name(name)} ({latency.n} timings)"
            _draw(axes, index, label, points, linestyle="none")
        drawn = True
    if not drawn:
        return None
    for k in crossings:
        axes.axvline(k, color="#8C8C8C", linestyle=":", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    legend_below(figure)
    return figure


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "retention_by_distance": retention_by_distance,
    "cost_against_retention": cost_against_retention,
    "latency_by_stage": latency_by_stage,
    "ledger": partial(share_bars, group="ledger"),
    "structure": partial(share_bars, group="structure"),
    "lifecycle": partial(share_bars, group="lifecycle"),
    "ability": partial(share_bars, group="ability"),
    "cost_of_pass": cost_of_pass_by_questions,
}


def draw_all(summary: Summary, by_turn: ByTurn | None = None) -> dict[str, str]:
    """Every figure that there are numbers for, by name, as the text of an SVG file."""
    drawn = {name: draw(summary) for name, draw in FIGURES.items()}
    drawn["retention_by_turn"] = retention_by_turn(by_turn or {})
    return {name: svg(figure) for name, figure in drawn.items() if figure is not None}


def save_figures(summary: Summary, folder: Path, by_turn: ByTurn | None = None) -> list[Path]:
    """Writes every figure that there are numbers for, as SVG."""
    paths = []
    for name, text in draw_all(summary, by_turn).items():
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{name}.svg")
        write_whole(paths[-1], text)
    return paths


@rc_context(STYLE)
def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file; the same figure gives the same text."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # text stays text: the reader's fonts count
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def inline(text: str, name: str, label: str) -> str:
    """The SVG of `svg` as an element of an HTML page: nothing in it reaches out of it or into another.

    Ids get `name` as a prefix, so that several figures can stand on one page; metadata, style sheets and
    namespaces go, the size is the page's, and `label` is what a screen reader says.
    """
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key == "href":
                value = re.sub(r"^#", f"#{name}-", value)
            else:
                value = value.replace("url(#", f"url(#{name}-")
            element.set("xml:space" if key == "space" else key, value)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _size(lines: Collection[str]) -> tuple[float, float]:
    """Inches of a figure whose legend has so many entries, two abreast: the axes keep their height."""
    return _WIDTH, 3.5 + 0.17 * math.ceil(len(lines) / 2)


def axes_of(x_label: str, y_label: str, size: tuple[float, float] = (_WIDTH, 3.8)) -> tuple[Figure, Axes]:
    """A figure of `size` inches with one pair of axes; draw inside rc_context(STYLE)."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    return figure, axes


def legend_below(figure: Figure, columns: int = 2) -> None:
    """Below the axes, where it covers no point."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _draw(axes: Axes, index: int, label: str, points: list[tuple[float, Estimate]], **look: Any) -> None:
    cells = [cell for _, cell in points]
    axes.errorbar(
        [x for x, _ in points],
        [cell.value or 0.0 for cell in cells],
        yerr=spread(cells),
        label=label,
        **{"linestyle": LINES[index % len(LINES)]} | _look(index) | look,
    )


def _bar_label(row: Row) -> str:
    return f"{plain_name(row.label)} {'↓' * row.meaning.endswith('lower is better')}".rstrip()


def _fill(index: int) -> dict[str, Any]:
    """A bar's colour and hatch."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "#FFFFFF",
        "linewidth": 0.6,
    }


def _look(index: int) -> dict[str, Any]:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2, "capsize": 2}


def spread(cells: Sequence[Estimate]) -> list[list[float]]:
    """Distances from the value down to its low and up to its high end, as matplotlib wants them."""
    down, up = [], []
    for cell in cells:
        value = cell.value or 0.0
        down.append(max(value - (value if cell.low is None else cell.low), 0.0))
        up.append(max((value if cell.high is None else cell.high) - value, 0.0))
    return [down, up]


def _label(name: str, cells: list[Estimate]) -> str:
    sizes = sorted({cell.n for cell in cells})
    text = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{plain_name(name)} (n={text} a point)"


def plain_name(name: str) -> str:
    """A name as matplotlib must get it: `$` would start mathematics, a leading `_` hide the line."""
    return " " * name.startswith("_") + one_line(name).replace("$", r"\$")
