"""Kills a comparison at random moments, resumes it, and shows that nothing is lost, doubled or changed.

    python tests/torture/kills.py [kills=25] [seed=0] [to=FOLDER]

A round is one comparison of `preset=smoke` with its lifecycle, which is killed once in each phase: SIGKILL to the
whole process group at a moment drawn by seed. The same command is given again after each. At its end its records,
figures and MLflow runs must be those of a run that nobody killed, times and memory apart. Checkpoints are written
at every step. With a folder of its own the script goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PHASES = {  # name -> the function of pipelines.compare that is it
    "fit": "fit_methods",
    "dialogues": "ask_dialogues",
    "timing": "time_answers",
    "lifecycle": "change_memories",
    "logging": "tried",
}
WORDS = (
    "preset=smoke",
    "device=cpu",
    "dtype=float32",
    "evaluation.lifecycle=true",
    "evaluation.batch_size=4",
    "lifecycle.num_written=2",
)
TIMES = ("ttft_s", "ttfa_s", "total_s", "stage_s", "serial_s", "seconds", "notes")
MEMORY = ("peak_bytes", "peaks_bytes", "reserved_bytes")


# --- the comparison that is killed -------------------------------------------------------------------


def die() -> None:
    os.killpg(0, signal.SIGKILL)


def watched(
    name: str, function: Callable[..., Any], kill_in: str, delay_s: float, times: Path
) -> Callable[..., Any]:
    """The function; where it is the phase to be killed in, it does not come to its end."""

    def run(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        if name == kill_in:
            timer = threading.Timer(delay_s, die)
            timer.daemon = True
            timer.start()
        found = function(*args, **kwargs)
        if name == kill_in:  # less was left of it than was drawn
            die()
        with times.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([name, time.perf_counter() - begin]) + "\n")
        return found

    return run


def compare_until_killed(kill_in: str, delay_s: float, times: Path, words: list[str]) -> None:
    from methods import checkpoint
    from pipelines import compare
    from pipelines.cli import main_of

    checkpoint.EVERY_S = 0.0
    for name, function in PHASES.items():
        setattr(compare, function, watched(name, getattr(compare, function), kill_in, delay_s, times))
    sys.argv = ["compare", *words]
    main_of("compare", compare.run_and_show)


# --- the killer --------------------------------------------------------------------------------------


def start(folder: Path, kill_in: str = "", delay_s: float = 0.0) -> int:
    """One start of the comparison of this folder, in a process group of its own; its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*WORDS, f"runs_dir={folder / 'runs'}"]
    command = [sys.executable, __file__, "compare", kill_in, str(delay_s), str(folder / "times.jsonl"), *words]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            return child.wait()
        finally:
            if child.poll() is None:  # this script is being stopped
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def is_measured(key: str) -> bool:
    """Is it a time or a peak of memory?"""
    of_figures = "/" in key and any(part in f"{key}_" for part in ("_s_", "_peak_", "/peak_", "/reserved_"))
    return key in TIMES or key in MEMORY or of_figures


def timeless(body: Any) -> Any:
    """A record or a figure without what the machine decides."""
    if isinstance(body, dict):
        return {key: timeless(value) for key, value in body.items() if not is_measured(key)}
    return [timeless(value) for value in body] if isinstance(body, list) else body


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def left_by(folder: Path) -> dict[str, Any]:
    """All that a comparison has left, as it must be whatever happened on the way."""
    import mlflow

    runs = [path.parent for path in (folder / "runs" / "regs").glob("*/run.json")]
    assert len(runs) == 1, f"{folder}: {len(runs)} runs in place of one"
    run = runs[0]
    summary = read(run / "summary.json")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    logged = client.search_runs(experiments)

    def num_traces(run_id: str) -> int:
        return len(
            client.search_traces(locations=experiments, run_id=run_id, include_spans=False, max_results=500)
        )

    weights = sorted(run.glob("*fits/**/*.safetensors"))
    return {
        "status": read(run / "run.json")["status"],
        "records": [timeless(json.loads(line)) for line in (run / "records.jsonl").open(encoding="utf-8")],
        "figures": timeless(summary["methods"]),
        "verdicts": {key: v["verdict"] for key, v in summary["verdicts"].items() if not is_measured(v["metric"])},
        "fits": {
            str(file.relative_to(run)): timeless(read(file)) for file in sorted(run.glob("*fits/**/fit.json"))
        },
        "weights": {str(w.relative_to(run)): hashlib.sha256(w.read_bytes()).hexdigest() for w in weights},
        "logged": sorted(
            (r.data.tags.get("method", ""), r.info.status, num_traces(r.info.run_id)) for r in logged
        ),
        "unfinished files": [str(path) for path in run.rglob("*.part")],
    }


def differences(found: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """Where two of them are not the same."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        for key, value in wanted.items():
            yield from differences(found[key], value, f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, value in enumerate(wanted):
            yield from differences(found[number], value, f"{place}[{number}]")
    elif found != wanted:
        yield f"{place}: {str(found)[:300]} in place of {str(wanted)[:300]}"


def durations(folder: Path) -> dict[str, float]:
    """Seconds of each phase of a run that was not killed."""
    return dict(json.loads(line) for line in (folder / "times.jsonl").open(encoding="utf-8"))


def torture(to: Path, kills: int, seed: int) -> None:
    """Raises AssertionError naming the first round whose results differ."""
    whole = to / "whole"
    note = to / "kills.json"
    done: list[list[Any]] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else []
    if not (whole / "finished").exists():
        assert start(whole) == 0, (whole / "log.txt").read_text(encoding="utf-8")[-2000:]
        (whole / "finished").touch()
    took, wanted = durations(whole), left_by(whole)
    assert wanted["status"] == "finished"
    say(
        f"a run that nobody kills: {len(wanted['records'])} records; "
        + ", ".join(f"{k} {v:.1f} s" for k, v in took.items())
    )
    rng = random.Random(seed)
    names = [list(PHASES)[n % len(PHASES)] for n in range(kills)]
    drawn = [(name, rng.uniform(0.0, took[name])) for name in names]
    for number, (name, delay_s) in enumerate(drawn):
        folder = to / f"round{number // len(PHASES)}"
        if number >= len(done):
            status = start(folder, name, delay_s)
            assert status == -signal.SIGKILL, (
                f"{folder}: ended with {status}: {(folder / 'log.txt').read_text()[-2000:]}"
            )
            done.append([name, round(delay_s, 2)])
            note.write_text(json.dumps(done), encoding="utf-8")
            say(f"kill {number + 1} of {kills}: in {name}, {delay_s:.2f} s after its start")
        last = number + 1 == kills or (number + 1) % len(PHASES) == 0
        if last and not (folder / "finished").exists():
            assert start(folder) == 0, (folder / "log.txt").read_text(encoding="utf-8")[-2000:]
            found = list(differences(left_by(folder), wanted))
            assert not found, f"{folder}: {len(found)} differences:\n" + "\n".join(found[:20])
            (folder / "finished").touch()
            say(f"{folder.name}: records, figures, fits and MLflow are those of the run that nobody killed")
    say(f"{kills} of {kills} kills survived")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    to = Path(given.get("to") or tempfile.mkdtemp(prefix="recallbench-torture-")).resolve()
    torture(to, int(given.get("kills", 25)), int(given.get("seed", 0)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare_until_killed(sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
    else:
        main()
