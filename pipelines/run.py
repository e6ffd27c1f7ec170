"""A run's folder: what was asked, on what, what is finished, and where to go on after an interruption.

runs/<task>/<time>-<config hash>/
    run.json           status, stages finished, config hash; while it runs the process that writes the folder
    config.json        the resolved configuration
    environment.json   versions, git sha, device
    records.jsonl      one line a generated turn or timed answer, flushed as they come
    fits/<seed>/<method>/   adapter, bank or index, fit.key and fit.json; before, checkpoints of its training
    refits/<seed>/<method>/<set>/   fits on other memories, the lifecycle's and the gate's, and memories.json
    footprints.json    memory of each method while it answers
    gate.json          what the literal recipe did at its gate, where it passed
    task.json          the task's name, version, licence, source and clauses, as reports show them
    summary.json, report.html, report.md, tables/, figures/
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from eval.records import CostRecord, Record, RecordError, RecordWriter, TurnRecord, read_all_records
from tasks.files import PART, locked, write_whole

if TYPE_CHECKING:
    from methods.backbone import Backbone

ROOT = Path(__file__).resolve().parent.parent
GENERAL_CORPUS = ROOT / "tasks" / "data" / "general"
PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "sentence-transformers",
    "chromadb",
    "pandas",
    "lm-eval",
    "mlflow",
    "hydra-core",
    "gguf",
]
COMMIT_FILE = "COMMIT"  # in place of a checkout (pipelines.bundle)
GATE_FILE = "gate.json"  # what the literal recipe did on what it trained on, where it passed (pipelines.gate)
# Settings that change where results go or when a run pauses, not what they are.
NOT_HASHED = ("runs_dir", "mlflow", "log_level", "max_hours", "fresh")
MEASURED = "measured"  # the stage after which nothing but reports and logging is left
PAUSED = "paused"  # status of a run of until=decided that is out of hours before all is decided
UNFINISHED = ("running", "interrupted", "failed", PAUSED, "unlogged")  # a run's status until it is "finished"


def code_version() -> str:
    """12 hex digits over what decides results beside the task's own data: sources, and the general corpus."""
    digest = hashlib.sha256()
    sources = [file for package in ("tasks", "methods", "eval") for file in (ROOT / package).rglob("*.py")]
    corpus = [file for file in GENERAL_CORPUS.rglob("*") if file.is_file()]
    for file in sorted([*sources, *corpus]):
        digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def git_sha() -> str:
    """The commit, with a plus sign if the tree is changed; empty where nothing tells it."""
    if (ROOT / COMMIT_FILE).exists():
        return (ROOT / COMMIT_FILE).read_text(encoding="utf-8").strip()
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha + ("+" if dirty else "")


def environment(backbone: Backbone) -> dict[str, Any]:
    """Everything about the machine, the libraries and the model that a reader may want to know."""
    import torch

    device = backbone.device
    return {
        "git_sha": git_sha(),
        "code_version": code_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": backbone.dtype_name,
        "model": asdict(backbone.facts),
        "versions": {name: version_of(name) for name in PACKAGES},
    }


def version_of(package: str) -> str:
    """Not every run needs every package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass
class Run:
    """An open run folder."""

    folder: Path
    config: Mapping[str, Any]
    started: float = field(default_factory=time.perf_counter)
    earlier_s: float = 0.0  # wall time of the interrupted attempts before this one
    stages: list[str] = field(default_factory=list)
    turns: list[TurnRecord] = field(default_factory=list)
    costs: list[CostRecord] = field(default_factory=list)
    further: list[Record] = field(default_factory=list)  # of the ability and the lifecycle pass
    left_out: dict[str, str] = field(default_factory=dict)  # control arm -> why it does not run
    status: str = "running"
    stopped_s: float | None = None  # the wall time once the clock was stopped
    fresh: bool = False  # takes no fit over from another run

    def __post_init__(self) -> None:
        self._writer = RecordWriter(self.folder / "records.jsonl")
        self._state_lock = threading.Lock()  # fits side by side may end at the same moment

    @property
    def wall_s(self) -> float:
        if self.stopped_s is not None:
            return self.stopped_s
        return self.earlier_s + time.perf_counter() - self.started

    @property
    def runs_dir(self) -> Path | None:
        """Where other runs lie."""
        return Path(str(self.config["runs_dir"])) if "runs_dir" in self.config else None

    def stop_clock(self) -> None:
        """Everything is measured: from here on run.json keeps this wall time, which summary.json takes over."""
        self.stopped_s = self.wall_s
        self.finish_stage(MEASURED)

    def add(self, records: Sequence[Record]) -> None:
        """Keeps the records, on disk first."""
        self._writer.write(records)
        self.keep(records)

    def keep(self, records: Iterable[Record]) -> None:
        """Sorts records that are on disk into their lists."""
        for record in records:
            if isinstance(record, TurnRecord):
                self.turns.append(record)
            elif isinstance(record, CostRecord):
                self.costs.append(record)
            else:
                self.further.append(record)

    def fit_folder(self, seed: int, method: str) -> Path:
        return self.folder / "fits" / str(seed) / method

    def refit_folder(self, seed: int, method: str, memories: str) -> Path:
        return self.folder / "refits" / str(seed) / method / memories

    def leave_out(self, arm: str, reason: str) -> None:
        self.left_out[arm] = reason
        self.write_state()

    def finish_stage(self, name: str) -> None:
        with self._state_lock:
            if name not in self.stages:
                self.stages.append(name)
        self.write_state()

    def write_state(self, status: str = "running") -> None:
        with self._state_lock:
            self.status = status
            write_json(self.folder / "run.json", self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "pid": os.getpid(),
            "pid_started": started(os.getpid()),
            "config_hash": config_hash(self.config),
            "stages_finished": self.stages,
            "turns_recorded": len(self.turns),
            "timings_recorded": len(self.costs),
            "further_recorded": len(self.further),
            "left_out": self.left_out,
            "wall_s": round(self.wall_s, 1),
        }

    def close(self, status: str) -> None:
        self.write_state(status)
        self._writer.close()

    def abandon(self, error: BaseException) -> None:
        """Closes a run that ends with an error; where the disk takes no more, run.json stays as it was."""
        with contextlib.suppress(OSError):
            self.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")


def write_json(path: Path, body: Any) -> None:
    """Whole or not at all: a reader never sees half a file."""
    text = json.dumps(body, indent=1, ensure_ascii=False, default=str) + "\n"
    write_whole(path, text.encode("utf-8", errors="surrogatepass"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run folder. Raises RecordError naming the file, and the line where it breaks off."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); the folder is not a whole run") from error
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordError(f"{path}{line}: is not whole JSON; the file was cut or edited") from error
    if not isinstance(body, dict):
        raise RecordError(f"{path}: holds no JSON object; the file was edited")
    return body


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits over what decides the results: settings, and the versions of data, model and code."""
    kept = {k: v for k, v in config.items() if k not in NOT_HASHED}
    body = json.dumps(kept, sort_keys=True, default=str) + code_version()
    return hashlib.sha256(body.encode()).hexdigest()[:8]


def started(pid: int) -> str | None:
    """When a process started, as no clock that is put right can move it; None where there is no such process.

    On Linux the machine's boot and the ticks since then; elsewhere the time of day that psutil knows.
    """
    stat, boot = Path(f"/proc/{pid}/stat"), Path("/proc/sys/kernel/random/boot_id")
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        if boot.exists():  # the name of the program stands in brackets and may hold anything
            return f"{boot.read_text().strip()}/{stat.read_text().rpartition(')')[2].split()[19]}"
        return f"{psutil.Process(pid).create_time():.0f}"
    except (psutil.NoSuchProcess, OSError, ValueError, OverflowError):  # the last two: no id, in an edited file
        return None


def writer_of(state: Mapping[str, Any]) -> int | None:
    """The process that still writes a run, from what its run.json says; None where it has gone.

    Its id may be another process's by now, which started at another time. A run.json from an earlier version does
    not tell that: then it is held by whatever process has the id.
    """
    pid, since = state.get("pid"), state.get("pid_started")
    if state.get("status") != "running" or not isinstance(pid, int):
        return None
    found = started(pid)
    return pid if found is not None and (found == since or not isinstance(since, str)) else None


def _drop_cut_line(path: Path) -> None:
    """A kill may leave half a line at the end; what was whole stays."""
    if not path.exists():
        return
    body = path.read_bytes()
    if body and not body.endswith(b"\n"):
        os.truncate(path, body.rfind(b"\n") + 1)


def open_run(config: Mapping[str, Any]) -> Run:
    """A new folder, or the unfinished one of the same configuration, data and code; `fresh`: a new one.

    Raises RecordError where another process writes that one, or a folder cannot be written. Of two processes that
    start at once one is refused.
    """
    base = Path(str(config["runs_dir"])) / str(config["task"]["name"])
    try:
        base.mkdir(parents=True, exist_ok=True)
        with locked(base):
            return _open_in(base, config)
    except OSError as error:
        raise RecordError(
            f"runs_dir={config['runs_dir']}: no run can be written there ({error}); choose another folder"
        ) from error


def _open_in(base: Path, config: Mapping[str, Any]) -> Run:
    digest = config_hash(config)
    for folder in sorted(base.glob(f"*-{digest}"), reverse=True):
        state_file = folder / "run.json"
        state = read_json(state_file) if state_file.exists() else {"status": "running"}
        writer = writer_of(state)
        if writer not in (None, os.getpid()):
            raise RecordError(
                f"{folder} is being written by process {writer} of the same configuration; wait for it or stop it"
            )
        if state.get("status") in UNFINISHED and not config.get("fresh"):
            run = _go_on(folder, state, config)
            break
    else:
        folder = _new_folder(base, digest)
        write_json(folder / "config.json", dict(config))
        run = Run(folder, config, fresh=bool(config.get("fresh")))
        run.write_state()
    _point_latest(Path(str(config["runs_dir"])), run.folder)
    return run


def take_up(folder: Path) -> Run:
    """The run in this folder, to do what is left of it. Raises RecordError where a process still writes it."""
    with locked(folder.parent):
        state = read_json(folder / "run.json")
        writer = writer_of(state)
        if writer not in (None, os.getpid()):
            raise RecordError(f"{folder} is being written by process {writer}; wait for it or stop it")
        return _go_on(folder, state, read_json(folder / "config.json"))


def _go_on(folder: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> Run:
    """The run of an earlier attempt, which has ended."""
    for part in folder.rglob(f"*{PART}"):
        part.unlink()
    saved = folder / "config.json"
    if not saved.exists():  # killed before it was written
        write_json(saved, dict(config))
    records = folder / "records.jsonl"
    _drop_cut_line(records)
    fresh = bool(read_json(saved).get("fresh"))
    run = Run(folder, config, earlier_s=float(state.get("wall_s", 0.0)), fresh=fresh)
    run.keep(read_all_records(records) if records.exists() else ())
    run.stages = list(state.get("stages_finished", []))
    if state.get("status") == PAUSED and MEASURED in run.stages:  # given more hours, it measures further slices
        run.stages.remove(MEASURED)
    run.left_out = dict(state.get("left_out", {}))
    if MEASURED in run.stages:
        run.stopped_s = run.earlier_s
    run.write_state()
    return run


def _new_folder(base: Path, digest: str) -> Path:
    """Named after this moment, and behind all that there are: a clock may have been put back."""
    now = time.strftime("%Y%m%d-%H%M%S")
    last = max((folder.name for folder in base.glob(f"*-{digest}")), default="")
    if last >= f"{now}-{digest}":
        stem, _, number = last.removesuffix(f"-{digest}").partition(".")
        now = f"{stem}.{int(number or 1) + 1:03d}"
    folder = base / f"{now}-{digest}"
    folder.mkdir()
    return folder


def _point_latest(runs_dir: Path, folder: Path) -> None:
    """`runs/latest` points at the newest run."""
    link = runs_dir / "latest"
    part = runs_dir / f"latest.{os.getpid()}{PART}"
    part.unlink(missing_ok=True)
    part.symlink_to(os.path.relpath(folder, runs_dir), target_is_directory=True)
    part.replace(link)
