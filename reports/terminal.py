"""The final table on the terminal: at most 100 columns wide, plain text where it is not a terminal."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reports import tables
from reports.base import Comparison, LoggedRun, Summary, default_store, verdicts
from reports.head import head
from reports.metric_names import Group, Row
from reports.text import one_line, redact

WIDTH = 100
METHODS_ABREAST = 3
_UI_ADDRESS = "http://127.0.0.1:5000"
_GROUPS: tuple[Group, ...] = ("retention", "abstention", "ledger", "structure", "cost")
_COLOURS = {"supported": "green", "refuted": "red"}
_ASCII = str.maketrans({"—": "-", "–": "-", "…": "...", "↵": "/", "⟨": "<", "⟩": ">", "\u2068": "", "\u2069": ""})


def render(
    comparison: Comparison, logged: LoggedRun | None = None, *, width: int = WIDTH, colour: bool = False
) -> str:
    """The closing screen of a comparison as text: verdicts, table, reasons for dashes, where to look.

    Three methods stand side by side; more go into further tables below. No line is longer than
    `width`, but for the closing ones: paths, commands and addresses are never broken. `logged` is what
    log_comparison returned; None leaves MLflow out.
    """
    summary = comparison.summary
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    names = list(comparison.methods)
    for start in range(0, len(names), METHODS_ABREAST):
        for block in _table(summary, names[start : start + METHODS_ABREAST]):
            console.print(block)
    for heading, sentences in head(comparison).items():
        console.print(Text(heading, "bold cyan"))
        for sentence in sentences:
            console.print(Padding(Text(one_line(sentence)), (0, 0, 0, 2)))
    console.print()
    for line in _verdicts(summary):
        console.print(line)
    console.print()
    for line in _closing(comparison, logged):
        console.print(line, soft_wrap=True)  # a path or a command must be copied whole
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def show(comparison: Comparison, logged: LoggedRun | None = None, file: TextIO | None = None) -> None:
    """Writes `render` to `file` (standard output by default), in colours only on a terminal."""
    file = file or sys.stdout
    colour = file.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    text = render(comparison, logged, colour=colour)
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # LANG=C: better a plain dash than a traceback after an hour's run
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    file.write(text)
    file.flush()


def ui_command(uri: str, cwd: Path) -> str:
    """The command that shows the runs, to type in `cwd`; empty where a server runs already.

    The variable keeps MLflow from starting its job runners: 11 s to the first page instead of 47 s.
    """
    if _is_server(uri):
        return ""
    store = "" if uri == default_store(cwd) else f" --backend-store-uri {shlex.quote(redact(uri))}"
    program = shlex.quote(_near(Path(sys.executable).with_name("mlflow"), cwd))
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {program} ui --workers 1{store}"


def run_address(logged: LoggedRun) -> str:
    """The page of the comparison: on its server, or where `mlflow ui` serves by default."""
    base = redact(logged.tracking_uri).rstrip("/") if _is_server(logged.tracking_uri) else _UI_ADDRESS
    return f"{base}/#/experiments/{logged.experiment_id}/runs/{logged.run_id}"


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _near(path: Path, cwd: Path) -> str:
    """`path` as short as it can be typed in `cwd`."""
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _table(summary: Summary, names: Sequence[str]) -> list[RenderableType]:
    """One block of methods, its rows under their headings, and the reasons for its dashes."""
    rows: list[Row] = []
    headings: dict[int, str] = {}
    for name in _GROUPS:
        found = tables.group_rows(summary, name, ("headline", "short"))
        if name == "retention":
            found += [row for kind, _, row in tables.distances(summary) if not kind]
        if found:
            headings[len(rows)] = name.capitalize()
            rows += found
    table = tables.build("", summary, rows, names)
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    made = "machine-made questions" if summary.get("machine_made") else ""
    grid.add_column(Text(made, "bold"), no_wrap=True, max_width=24)
    for column in table.frame.columns:
        grid.add_column(Text(one_line(str(column)), "bold"), justify="right", overflow="fold")
    lines = zip(table.frame.index, table.frame.itertuples(index=False), strict=True)
    for index, (label, cells) in enumerate(lines):
        if index in headings:
            grid.add_row(Text(headings[index], "bold cyan"))
        grid.add_row(Text(f"  {label}"), *(Text(one_line(str(cell))) for cell in cells))
    notes = [Text(f"({i}) {one_line(reason)}", "dim") for i, reason in enumerate(table.notes, start=1)]
    return [grid, *notes, ""]


def _verdicts(summary: Summary) -> list[RenderableType]:
    """Each decided hypothesis, its claim, and the figures on a line below; of the others the names alone."""
    lines: list[RenderableType] = []
    for verdict in verdicts(summary):
        if verdict.outcome not in _COLOURS:
            continue
        line = Text(
            one_line(f"{verdict.key} {verdict.outcome}"), f"bold {_COLOURS.get(verdict.outcome, '')}".strip()
        )
        line.append(one_line(f": {verdict.claim}" if verdict.claim else ""), "not bold default")
        lines.append(line)
        if verdict.reason:
            lines.append(Padding(Text(one_line(verdict.reason), "dim"), (0, 0, 0, 3)))
    still_open = [one_line(verdict.key) for verdict in verdicts(summary) if verdict.outcome not in _COLOURS]
    if still_open:
        lines.append(Text(f"not decided by this data: {', '.join(still_open)} (why: report)", "dim"))
    return lines


def _closing(comparison: Comparison, logged: LoggedRun | None) -> list[Text]:
    cwd = Path.cwd()
    page = _near(comparison.run_dir.absolute() / "report.html", cwd)
    lines = [f"report:  {page} (in plain text: report.md beside it)"]
    if logged is not None:
        command = ui_command(logged.tracking_uri, cwd)
        lines += [f"MLflow:  {command}"] if command else []
        lines += [f"{'then:' if command else 'MLflow:':8} {run_address(logged)}"]
    return [Text(line) for line in lines]
