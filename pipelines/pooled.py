"""One report over several runs of one comparison, made on one machine or many: `report runs=A,B,C`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.looks import FIRST_LOOK
from pipelines.ablation_results import is_ablation
from pipelines.against import settings
from pipelines.results import SavedRun, read_saved
from pipelines.run import write_json
from reports.base import ReportError

FILE = "pooled.json"  # which runs a pooled report is over
MACHINE = ("device", "dtype")  # may differ between machines


def pool(folders: Sequence[Path], runs_dir: Path) -> SavedRun:
    """The runs as one, in a folder of its own. Raises ReportError where they are not one comparison."""
    runs = {folder: _saved(folder) for folder in folders}
    first, *others = runs.values()
    for other in others:
        _check_same(first, other)
    seen: dict[int, Path] = {}
    for folder, run in runs.items():
        for seed in sorted({record.seed for record in run.turns}):
            if seed in seen:
                raise ReportError(
                    f"{seen[seed]} and {folder} both hold seed {seed}, which would count twice; leave one out"
                )
            seen[seed] = folder
    by_seed = sorted(runs.values(), key=lambda run: min(record.seed for record in run.turns))
    names = sorted(map(str, folders))
    target = runs_dir / first.task.name / f"pooled-{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:8]}"
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / FILE, {"runs": [str(run.folder) for run in by_seed]})
    planned = [run.config["seeds"] for run in by_seed if run.config.get("until")]
    config: dict[str, Any] = {**by_seed[0].config, "seeds": len(seen), "until": ""}
    if planned:  # slices were added as the data came out: every one counts as a look
        config |= {"until": "decided", "seeds": max(*planned, len(seen), FIRST_LOOK)}
    methods = dict.fromkeys(name for run in by_seed for name in run.fits)
    return SavedRun(
        folder=target,
        config=config,
        environment=by_seed[0].environment,
        task=by_seed[0].task,
        turns=[record for run in by_seed for record in run.turns],
        costs=[record for run in by_seed for record in run.costs],
        edits=[record for run in by_seed for record in run.edits],
        lifecycle=[record for run in by_seed for record in run.lifecycle],
        abilities=[record for run in by_seed for record in run.abilities],
        fits={name: [fit for run in by_seed for fit in run.fits.get(name, ())] for name in methods},
        left_out={name: reason for run in by_seed for name, reason in run.left_out.items()},
        wall_s=sum(run.wall_s for run in by_seed),
    )


def _saved(folder: Path) -> SavedRun:
    if is_ablation(folder):
        raise ReportError(f"{folder}: is an ablation; runs=... takes comparisons, leave it out")
    return read_saved(folder)


def _check_same(first: SavedRun, other: SavedRun) -> None:
    """Raises ReportError naming what makes two runs two comparisons."""
    both = f"{first.folder} and {other.folder}"
    data = [f"{run.task.name}, version {run.config['data_version']}" for run in (first, other)]
    if data[0] != data[1]:
        raise ReportError(f"{both} are on other data ({data[0]}; {data[1]}); give runs on one version of one task")
    codes = [run.environment.get("code_version") for run in (first, other)]
    if codes[0] != codes[1]:
        raise ReportError(
            f"{both} were made by different versions of the code ({codes[0]}, {codes[1]}), of scorers and recipes "
            "perhaps; make them with one version, or compare them with run=... against=..."
        )
    of_first, of_other = settings(first.config), settings(other.config)
    for key in of_first | of_other:
        if key not in MACHINE and of_first.get(key) != of_other.get(key):
            raise ReportError(
                f"{both} are not one comparison: {key} is {of_first.get(key, 'not set')} and "
                f"{of_other.get(key, 'not set')}; compare them with run=... against=..."
            )
