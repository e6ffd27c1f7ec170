"""Two figures: retention by distance, and what an answer costs against what is retained.

Drawn without pyplot (no global state, no display), in the colours of Okabe and Ito, which stay apart
for colour-blind readers, and with a marker of its own for each method. The same summary gives the
same bytes of SVG.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.stats import Estimate
from reports.base import Summary, estimate
from reports.tables import distances
from reports.text import one_line

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SIZE = (5.2, 3.4)  # inches
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small files, searchable
    "svg.hashsalt": "recallbench",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@rc_context(_STYLE)
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
    figure, axes = _axes("turns of other talk before the question (d)", "first asks right (share, 95% interval)")
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
    axes.legend(frameon=False, loc="best")
    return figure


@rc_context(_STYLE)
def cost_against_retention(summary: Summary) -> Figure | None:
    """Share right against median seconds for a whole answer; up and left is better."""
    figure, axes = _axes("seconds for a whole answer (median, batch 1)", "answers right (share, 95% interval)")
    drawn = False
    for index, name in enumerate(summary["methods"]):
        right = estimate(summary, name, "retention/accuracy")
        seconds = estimate(summary, name, "cost/latency_p50_s")
        if right.value is None or seconds.value is None:
            continue
        label = f"{_plain(name)} ({right.n} answers, {seconds.n} timings)"
        axes.errorbar(
            [seconds.value],
            [right.value],
            xerr=_spread([seconds]),
            yerr=_spread([right]),
            **_look(index),
            linestyle="none",
            label=label,
        )
        drawn = True
    if not drawn:
        return None
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="best")
    return figure


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "retention_by_distance": retention_by_distance,
    "cost_against_retention": cost_against_retention,
}


def save_figures(summary: Summary, folder: Path) -> list[Path]:
    """Writes every figure that the summary has numbers for, as SVG."""
    paths = []
    for name, draw in FIGURES.items():
        figure = draw(summary)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{name}.svg")
            paths[-1].write_text(svg(figure), encoding="utf-8")
    return paths


@rc_context(_STYLE)
def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    return figure, axes


def _draw(axes: Axes, index: int, label: str, points: list[tuple[float, Estimate]]) -> None:
    cells = [cell for _, cell in points]
    axes.errorbar(
        [x for x, _ in points],
        [cell.value or 0.0 for cell in cells],
        yerr=_spread(cells),
        label=label,
        **_look(index),
    )


def _look(index: int) -> dict[str, Any]:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2, "capsize": 2}


def _spread(cells: list[Estimate]) -> list[list[float]]:
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
    return f"{_plain(name)} (n={text} a point)"


def _plain(name: str) -> str:
    """A name as matplotlib must get it: `$` would start mathematics, a leading `_` hide the line."""
    return " " * name.startswith("_") + one_line(name).replace("$", r"\$")
