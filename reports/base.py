"""What a finished comparison hands to the reports: the summary, the records and where they lie."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.records import CostRecord, TurnRecord
from eval.stats import Estimate, missing
from methods.base import FitReport
from tasks.base import TaskData, TurnKind

Summary = Mapping[str, Any]  # summary.json: eval.summary.summarise, DESIGN section 7


class ReportError(RuntimeError):
    """A report that could not be made: names the thing, where the results are safe, and the fix."""


@dataclass(frozen=True)
class ClauseFacts:
    """A clause as reports show it."""

    id: str
    title: str
    text: str
    family: str
    cued: bool


@dataclass(frozen=True)
class TaskFacts:
    """What reports say of the task; kept as task.json, so that a report needs no task files."""

    name: str
    version: str = ""  # hash of the data files
    licence: str = ""
    source: str = ""
    memories: tuple[ClauseFacts, ...] = ()
    machine_made: bool = False  # its questions were made by rule
    notes: tuple[str, ...] = ()  # what a reader of the figures must know
    fraction: float = 0.0  # of the rulebook's families, the share that each seed drew; 0: not told

    @classmethod
    def of(cls, data: TaskData) -> TaskFacts:
        clauses = tuple(ClauseFacts(m.id, m.title, m.text, m.family, m.cued) for m in data.memories)
        return cls(
            data.name,
            data.version,
            data.licence,
            data.source,
            clauses,
            data.machine_made,
            tuple(data.notes),
            data.fraction,
        )


@dataclass(frozen=True)
class Comparison:
    """One finished comparison: all that any report is made from."""

    summary: Summary
    run_dir: Path  # holds summary.json and records.jsonl already; the reports are written beside them
    config: Mapping[str, Any] = field(default_factory=dict)  # resolved, nested
    environment: Mapping[str, Any] = field(default_factory=dict)  # git_sha, device, versions (nested is fine)
    turns: Sequence[TurnRecord] = ()
    costs: Sequence[CostRecord] = ()
    fits: Mapping[str, FitReport | Sequence[FitReport]] = field(default_factory=dict)  # several: one a seed
    pairs: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)  # eval.summary.comparisons
    pairs_here: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)  # about this rulebook
    # method -> kind of turn -> turn -> share right
    by_turn: Mapping[str, Mapping[TurnKind, Mapping[int, Estimate]]] = field(default_factory=dict)
    data: TaskFacts | None = None
    tags: Mapping[str, str] = field(default_factory=dict)  # further MLflow tags

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.summary["methods"])

    @property
    def rivals(self) -> tuple[str, ...]:
        """The methods that were asked for, without the control arms that only bound the table."""
        asked = self.config.get("run_methods") or self.methods
        return tuple(name for name in self.methods if name in asked)


@dataclass(frozen=True)
class Verdict:
    """How a pre-registered hypothesis ended, as summary.json has it (eval.verdict)."""

    key: str  # "H1", "H1/uncued", "H5/recall_spec"
    outcome: str  # supported, refuted, not decided by this data
    claim: str
    reason: str  # the figures behind it


@dataclass(frozen=True)
class LoggedRun:
    """Where a comparison stands in MLflow."""

    tracking_uri: str
    experiment_id: str
    run_id: str  # the parent
    method_run_ids: dict[str, str]
    num_traces: int


def estimate(summary: Summary, method: str, key: str) -> Estimate:
    """The metric `key` of `method`. Absent, null and not-a-number all come back with a reason."""
    cell = summary["methods"][method].get(key)
    if cell is None:
        return missing("not measured in this run")
    value = _number(cell.get("value"))
    if value is None:
        return missing(str(cell.get("reason") or "not measured in this run"))
    return Estimate(value, _number(cell.get("low")), _number(cell.get("high")), cell.get("n") or 0)


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def metric_keys(summary: Summary) -> tuple[str, ...]:
    """Every metric that any method has, in order of first appearance."""
    return tuple(dict.fromkeys(key for metrics in summary["methods"].values() for key in metrics))


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json of a run folder. Raises ReportError naming the file where it cannot be read."""
    path = run_dir / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError(
            f"{path}: no such file; the run has not finished: start the same command again to continue it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not valid JSON ({error}); write it again from records.jsonl") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("methods"), dict):
        raise ReportError(f"{path}: holds no table of methods; write it again from records.jsonl")
    return summary


def verdicts(summary: Summary) -> tuple[Verdict, ...]:
    """The verdicts, in the order of the summary."""
    return tuple(
        Verdict(
            key=key,
            outcome=body["verdict"],
            claim=body.get("claim", ""),
            reason=body.get("reason", ""),
        )
        for key, body in summary.get("verdicts", {}).items()
    )


def facts(comparison: Comparison) -> dict[str, str]:
    """Who was compared, on what, where: what a reader needs before any number."""
    summary, data, turns = comparison.summary, comparison.data, comparison.turns
    seeds = summary.get("seeds") or [summary.get("seed")]
    found: dict[str, Any] = {
        "methods": ", ".join(comparison.methods),
        "task": summary.get("task"),
        "preset": summary.get("preset"),
        "seeds": ", ".join(map(str, seeds)),
        "wall time": duration(summary.get("wall_s")),
    }
    for arm, reason in summary.get("left_out", {}).items():
        found[f"left out: {arm}"] = reason
    if data is not None and data.memories:
        cued = sum(memory.cued for memory in data.memories)
        found["clauses"] = f"{len(data.memories)} ({cued} cued, {len(data.memories) - cued} uncued)"
    if data is not None:
        found["data version"] = data.version
        found["data licence"] = data.licence
        found["data source"] = data.source
        found["note"] = " ".join(data.notes)
    if turns:
        dialogues = {(turn.method, turn.seed, turn.dialogue_id) for turn in turns}
        per_method = len(dialogues) // max(len({(m, s) for m, s, _ in dialogues}), 1)
        found["dialogues"] = f"{per_method} a method, {len(turns)} generated turns in all"
    if comparison.costs:
        found["timed answers"] = f"{len(comparison.costs)} in all, batch 1"
    found |= flatten(comparison.environment)
    found["run folder"] = f"{comparison.run_dir.parent.name}/{comparison.run_dir.name}"
    return {name.replace("_", " "): str(value) for name, value in found.items() if value not in (None, "")}


def duration(seconds: float | None) -> str:
    """`1 h 5 min`, `24 min 1 s` or `3.2 s`; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def default_store(cwd: Path) -> str:
    """Where runs go unless MLFLOW_TRACKING_URI says otherwise; a plain `mlflow ui` in `cwd` finds it."""
    return f"sqlite:///{cwd.as_posix()}/mlflow.db"


FOLDERS = ("task.path", "runs_dir", "model")  # settings that may name a folder of this machine


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings as reports and MLflow show them: of a folder elsewhere on this machine its name alone."""
    found = flatten(config)
    for key in FOLDERS:
        if found.get(key, "").startswith(("/", "~", "..")) or Path(found.get(key, "")).is_absolute():
            found[key] = Path(found[key]).name
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `a.b.c: text`, in order; an empty group is kept as `{}`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = str(dict(value)) if isinstance(value, Mapping) else str(value)
    return flat
