"""From a run folder to its results: summary, verdicts, reports. Needs no model, so it can be done again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.ability import ability_metrics
from eval.decided import contrasts_asked, decided
from eval.fields import FieldError, decode
from eval.lifecycle_metrics import lifecycle_metrics
from eval.records import (
    AbilityRecord,
    CostRecord,
    EditRecord,
    LifecycleRecord,
    Record,
    RecordError,
    TurnRecord,
    read_all_records,
    records_file,
)
from eval.stats import LEVEL, Estimate
from eval.summary import accuracy_by_turn, by_method, comparisons, summarise
from eval.verdict import judge_all
from methods.base import FitReport
from pipelines.run import read_json, write_json
from pipelines.saved_fits import load_fit
from reports.base import Comparison, TaskFacts
from reports.html import write_html
from reports.markdown import write_report

MOST_SLICES = 10_000  # that a run with until=decided may plan
T = TypeVar("T")


@dataclass(frozen=True)
class SavedRun:
    """What a run left in its folder: all that its results are computed from."""

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    task: TaskFacts
    turns: Sequence[TurnRecord]
    costs: Sequence[CostRecord]
    edits: Sequence[EditRecord]
    lifecycle: Sequence[LifecycleRecord]
    abilities: Sequence[AbilityRecord]
    fits: Mapping[str, Sequence[FitReport]]  # method -> one report a seed
    left_out: Mapping[str, str]  # control arm, or recipe that failed its gate -> why it is not here
    wall_s: float


def read_saved(folder: Path, fit_of: Mapping[str, str] | None = None) -> SavedRun:
    """Reads a run folder in which everything is measured. Raises RecordError naming the file that does not fit.

    fit_of: an ablation's rows, each with the row whose fit it answers with; else the methods are the configured.
    """
    state = read_json(folder / "run.json")
    config = read_json(folder / "config.json")
    records = records_file(folder)
    if not records.is_file():
        raise RecordError(f"{records}: no such file; without its records nothing of a run can be reported")
    found = read_all_records(records)
    turns, costs = _of(TurnRecord, found), _of(CostRecord, found)
    num_further = len(found) - len(turns) - len(costs)
    for num_read, kind in ((len(turns), "turns"), (len(costs), "timings"), (num_further, "further")):
        written = state.get(f"{kind}_recorded", 0)
        if num_read != written:
            raise RecordError(
                f"{records}:{len(found)}: ends after {num_read} {kind} records, but "
                f"run.json says that {written} were written; lines are missing or too many"
            )
    if not turns:
        raise RecordError(f"{records}: holds no generated turn, so there is nothing to report")
    kinds = {"seed": int, "seeds": int, "run_methods": list, "preset": str, "evaluation": dict, "task": dict}
    _check(folder / "config.json", config, {**kinds, "data_version": str})
    state = {"left_out": {}, "stages_finished": [], **state}  # runs from before it was kept
    _check(folder / "run.json", state, {"wall_s": (int, float), "left_out": dict, "stages_finished": list})
    most = MOST_SLICES if config.get("until") else len(turns)
    if not 1 <= config["seeds"] <= most:
        raise RecordError(f"{folder / 'config.json'}: seeds is more than its turns; it was edited")
    seeds = measured_seeds(config, state["stages_finished"])
    if config.get("until"):  # a slice that is not whole counts for nothing
        found = [record for record in found if record.seed in seeds]
        turns, costs = _of(TurnRecord, found), _of(CostRecord, found)
        if not turns:
            raise RecordError(f"{records}: holds no whole slice yet; start the same comparison again, it goes on")
    left_out = state["left_out"]
    asked = [name for name in (config["run_methods"] if fit_of is None else fit_of) if name not in left_out]
    fitted = {(record.method, record.seed) for record in turns} | {
        (name, seed) for name in asked for seed in seeds
    }
    names = dict.fromkeys((*asked, *(record.method for record in turns)))
    folders = {name: (fit_of or {}).get(name, name) for name in names}
    return SavedRun(
        folder=folder,
        config=config,
        environment=read_json(folder / "environment.json"),
        task=_read_task(folder, config),
        turns=turns,
        costs=costs,
        edits=_of(EditRecord, found),
        lifecycle=_of(LifecycleRecord, found),
        abilities=_of(AbilityRecord, found),
        fits={name: [read_fit(folder, s, folders[name]) for s in seeds if (name, s) in fitted] for name in names},
        left_out=left_out,
        wall_s=float(state["wall_s"]),
    )


def _check(file: Path, body: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raises RecordError for a field that is missing or holds something else."""
    for key, kind in kinds.items():
        if key not in body:
            raise RecordError(f"{file}: {key} is missing; the file was edited")
        if not isinstance(body[key], kind):
            raise RecordError(
                f"{file}: {key} is {str(body[key])[:60]!r}, which no run writes; the file was edited"
            )


def slice_stage(seed: int) -> str:
    """The stage that ends a slice of until=decided."""
    return f"slice {seed}"


def measured_seeds(config: Mapping[str, Any], stages: Collection[str]) -> list[int]:
    """The run's seeds; with until=decided those whose slice is whole."""
    planned = range(config["seed"], config["seed"] + config["seeds"])
    return [seed for seed in planned if not config.get("until") or slice_stage(seed) in stages]


def _of(kind: type[T], records: Iterable[Record]) -> list[T]:
    return [record for record in records if isinstance(record, kind)]


def _read_task(folder: Path, config: Mapping[str, Any]) -> TaskFacts:
    path = folder / "task.json"
    if not path.exists():  # a run from before the file was kept
        _check(folder / "config.json", config["task"], {"name": str})
        return TaskFacts(config["task"]["name"], config["data_version"])
    try:
        return decode(TaskFacts, read_json(path))
    except FieldError as error:
        raise RecordError(f"{path}: {error}; the file was edited") from error


def read_fit(folder: Path, seed: int, method: str) -> FitReport:
    """What the fit in the run folder cost. Raises RecordError where there is none."""
    path = folder / "fits" / str(seed) / method
    if ".." in Path(method).parts or Path(method).is_absolute():
        raise RecordError(f"{folder}: a method is called {method!r}, which leads out of the folder; it was edited")
    report = load_fit(path)
    if report is None:
        raise RecordError(f"{path / 'fit.json'}: no such file; what the fit cost is not known without it")
    return report


def write_results(saved: SavedRun) -> Comparison:
    """Computes everything from the records, writes summary.json and the reports, returns what was written."""
    plan = plan_of(saved)
    level = plan["level"] if plan else LEVEL
    verdicts = judge_all(saved.turns, saved.costs, abilities=saved.abilities, level=level)
    summary = summarise(
        saved.turns,
        saved.costs,
        saved.fits,
        task=saved.task.name,
        preset=str(saved.config["preset"]),
        wall_s=saved.wall_s,
        verdicts=verdicts,
        extra=_extra(saved),
    )
    summary["left_out"] = dict(saved.left_out)
    summary["machine_made"] = saved.task.machine_made
    if plan:
        summary["decided"] = plan
    write_json(saved.folder / "summary.json", summary)
    # The evaluation's arms bound the table; among the pairs they would only raise Holm's bar.
    rivals = [record for record in saved.turns if record.method in saved.config["run_methods"]]
    comparison = Comparison(
        summary=summary,
        run_dir=saved.folder,
        config=saved.config,
        environment=saved.environment,
        turns=saved.turns,
        costs=saved.costs,
        fits=saved.fits,
        pairs=comparisons(rivals, level=level),
        pairs_here=comparisons(rivals, saved.task.fraction, level) if saved.task.fraction else {},
        by_turn={name: accuracy_by_turn(found) for name, found in by_method(saved.turns).items()},
        data=saved.task,
    )
    write_report(comparison)
    write_html(comparison)
    return comparison


def plan_of(saved: SavedRun) -> dict[str, Any] | None:
    """What the slices of until=decided have decided; None where all was planned to be measured."""
    if not saved.config.get("until"):
        return None
    contrasts = contrasts_asked(saved.config["contrasts"], saved.config["run_methods"])
    return decided(saved.turns, saved.costs, contrasts, saved.config["seeds"], saved.wall_s)


def _extra(saved: SavedRun) -> dict[str, dict[str, Estimate]]:
    """method -> the lifecycle/* and ability/* metrics of the passes that were run."""
    metrics: dict[str, dict[str, Estimate]] = {}
    for name in by_method(saved.turns):
        metrics[name] = {}
        answers = [record for record in saved.lifecycle if record.method == name]
        edits = [record for record in saved.edits if record.method == name]
        if answers or edits:
            metrics[name] |= lifecycle_metrics(answers, edits)
        abilities = [record for record in saved.abilities if record.method == name]
        if abilities:
            metrics[name] |= ability_metrics(abilities)
    return metrics
