"""A run's recall model as a folder of its own: `python -m pipelines.export run=latest method=recall to=FOLDER`.

The folder is an ordinary model folder with its memories; somebody with transformers alone chats with it
(`pipelines.export_folder`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from methods.base import MethodError
from pipelines.cli import main_with

HELP = """usage: python -m pipelines.export to=FOLDER [run=latest] [method=recall] [overwrite=false]

  to=...          the folder to be written
  run=...         a run's folder, its id (the folder's name, or task/name), or latest
  runs_dir=...    where runs lie (default: runs)
  method=...      a recall method that the run has a saved fit of, or such a row of an ablation (default: recall)
  seed=...        which of the run's seeds (default: its first)
  device=...      auto, cpu, cuda (default: the run's own)
  overwrite=true  an earlier export in that folder is written over; anything else never is

The folder's README.md shows how to chat with it, with transformers alone.
"""


@dataclass(frozen=True)
class Options:
    """The words of the command."""

    to: str = ""
    run: str = "latest"
    runs_dir: str = "runs"
    method: str = "recall"
    seed: int = -1  # the run's first
    device: str = ""
    overwrite: bool = False


def export(options: Options) -> None:
    """Finds the fit, loads it, writes the folder and says where it is."""
    if not options.to:
        raise MethodError("to=... is missing: name the folder to be written, e.g. to=exported")
    from methods.recall.method import RecallMethod
    from pipelines.export_folder import check_room, export_model
    from pipelines.fitted_run import FittedRun
    from pipelines.progress import quiet_libraries
    from pipelines.report import find_run

    quiet_libraries()
    folder = Path(options.to)
    check_room(folder, options.overwrite)
    run = find_run(options.run, Path(options.runs_dir))
    fitted = FittedRun(run, None if options.seed < 0 else options.seed, options.device)
    method = fitted.method(options.method)
    if not isinstance(method, RecallMethod):
        raise MethodError(
            f"method={options.method}: has no memories to export; name a recall method, of: "
            f"{', '.join(fitted.names)}"
        )
    export_model(method, folder, options.overwrite)
    sys.stdout.write(
        f"wrote {options.method} of {run} (seed {fitted.seed}) to {folder}; how to chat with it: "
        f"{folder / 'README.md'}\n"
    )


def main() -> None:
    """The command."""
    main_with(Options, lambda: HELP, export)


if __name__ == "__main__":
    main()
