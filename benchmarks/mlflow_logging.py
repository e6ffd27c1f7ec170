"""What logging to MLflow adds to a run: `python benchmarks/mlflow_logging.py [run folder]`.

Without a folder: the measured laptop comparison in reports/results/. Logs into an SQLite store in a temporary
folder, twice: the first time makes it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports.saved import MEASURED, read_run


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    run = read_run(Path(sys.argv[1]) if len(sys.argv) > 1 else MEASURED / "regs-seed0")
    wall_s = float(run.summary["wall_s"])
    num_dialogues = len({(turn.seed, turn.dialogue_id) for turn in run.turns})
    say(f"{len(run.turns)} turns, {num_dialogues} dialogues, {len(run.methods)} methods; the run: {wall_s:.0f} s")
    started = time.perf_counter()
    from reports.mlflow_log import log_comparison

    say(f"import: {time.perf_counter() - started:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for store in ("new", "kept"):
            started = time.perf_counter()
            logged = log_comparison(run, tracking_uri=f"sqlite:///{folder}/mlflow.db")
            seconds = time.perf_counter() - started
            say(f"{store} store: {seconds:.1f} s, {logged.num_traces} traces; {seconds / wall_s:.2%} of the run")
        os.chdir("/")


if __name__ == "__main__":
    main()
