"""Two runs, or two of lm-eval's sample logs, side by side: `python -m pipelines.report run=A against=B`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.lm_eval_log import is_log, log_files, read_log
from eval.two_runs import IncomparableError, Row, Side, compare_runs, sides_of_logs, sides_of_run
from pipelines.ablation_results import is_ablation
from pipelines.results import SavedRun, read_saved
from pipelines.run import NOT_HASHED
from reports.base import ReportError, flatten

HOW = ("sampling", "evaluation.max_new_tokens")  # settings that decide how an answer is generated
NO_MATTER = (*NOT_HASHED, "seed", "seeds", "until", "contrasts", "fit_processes", "fit_devices", "preset")


@dataclass(frozen=True)
class TwoRuns:
    """What a comparison of two runs shows."""

    names: tuple[str, str]
    rows: list[Row]
    differs: dict[str, tuple[str, str]]  # setting -> what either run has: what the comparison is about
    seeds: tuple[tuple[int, ...], tuple[int, ...]] | None  # of runs; None: logs, which do not tell


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """A run's settings, flat, without those that change no result."""
    flat = flatten(config)
    return {key: value for key, value in flat.items() if key.partition(".")[0] not in NO_MATTER}


def below(flat: Mapping[str, str], groups: tuple[str, ...]) -> dict[str, str]:
    """The settings of some groups."""
    return {key: value for key, value in flat.items() if key.startswith(groups)}


def compare_folders(a: Path, b: Path) -> TwoRuns:
    """Raises ReportError where the two say nothing about each other."""
    logs = [is_log(path) for path in (a, b)]
    try:
        if logs[0] != logs[1]:
            raise IncomparableError(
                f"another scorer: {a if logs[0] else b} is a log scored by lm-eval, and the other is a run scored "
                "by its keys; give two runs or two logs"
            )
        return _of_logs(a, b) if logs[0] else _of_runs(a, b)
    except IncomparableError as error:
        raise ReportError(f"{a} and {b} are incomparable: {error}") from error


def _of_logs(a: Path, b: Path) -> TwoRuns:
    one, other = (sides_of_logs([read_log(file) for file in log_files(path)]) for path in (a, b))
    return TwoRuns((a.name, b.name), compare_runs(_matched(one, other, "task")), {}, None)


def _of_runs(a: Path, b: Path) -> TwoRuns:
    runs = [_saved(path) for path in (a, b)]
    flat = [settings(run.config) for run in runs]
    versions = [str(run.config["data_version"]) for run in runs]
    tasks = [run.task.name for run in runs]
    if tasks[0] != tasks[1] or versions[0] != versions[1]:
        raise IncomparableError(
            f"other data: {tasks[0]}, version {versions[0]}, against {tasks[1]}, version {versions[1]}; "
            "run both on one version of one task"
        )
    for what, groups, fix in (("other dialogues", ("dialogues",), "ask"), ("another decoding", HOW, "decode")):
        was, now = (below(settings_of, groups) for settings_of in flat)
        changed = [key for key in was | now if was.get(key) != now.get(key)]
        if changed:
            said = "; ".join(
                f"{key} {was.get(key, 'not set')} against {now.get(key, 'not set')}" for key in changed
            )
            raise IncomparableError(f"{what}: {said}; {fix} both alike")
    one, other = (sides_of_run(run.turns, below(of, HOW)) for run, of in zip(runs, flat, strict=True))
    differs = {
        key: (flat[0].get(key, "not set"), flat[1].get(key, "not set"))
        for key in flat[0] | flat[1]
        if flat[0].get(key) != flat[1].get(key) and not key.startswith(("task.", "run_methods"))
    }
    codes = [str(run.environment.get("code_version", "")) for run in runs]
    if codes[0] != codes[1]:
        differs["code_version"] = (codes[0], codes[1])
    seeds = tuple(sorted({r.seed for r in runs[0].turns})), tuple(sorted({r.seed for r in runs[1].turns}))
    return TwoRuns((a.name, b.name), compare_runs(_matched(one, other, "method")), differs, seeds)


def _saved(folder: Path) -> SavedRun:
    if is_ablation(folder):
        raise ReportError(
            f"{folder}: is an ablation, whose rows are compared in its own report; name a comparison"
        )
    return read_saved(folder)


def _matched(a: Mapping[str, Side], b: Mapping[str, Side], kind: str) -> list[tuple[Side, Side]]:
    """Sides of one name; where both runs have only one, these two. Raises IncomparableError where none match."""
    if len(a) == len(b) == 1:
        return list(zip(a.values(), b.values(), strict=True))
    common = [name for name in a if name in b]
    if not common:
        raise IncomparableError(
            f"other data: no {kind} in common ({', '.join(a)} against {', '.join(b)}); name runs that share one"
        )
    return [(a[name], b[name]) for name in common]
