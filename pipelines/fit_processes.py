"""Fits methods in processes of their own, several at a time, each on a card in turn.

A small model trains little faster on two threads than on one (docs/EXPERIMENTS_LOG.md, "Speed"), hence fits side
by side. `python -m pipelines.fit_processes RUN FOLDER JOB` is one such process, its job in JSON; it saves the fit
in FOLDER and prints its progress, a line of JSON behind a mark. What a library prints goes to fit.log in that
folder. Where several devices share a fit, `torchrun` starts as many of them: all compute the same fit, each its
share of every batch (`methods.batches.share_of`); the first one prints and saves.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from eval.fields import decode
from methods.backbone import resolve_device
from methods.base import MethodError
from pipelines.children import as_child, died_of, heard, say
from pipelines.config import Resolved, saved_config
from pipelines.progress import Display
from pipelines.run import Run, write_json
from pipelines.saved_fits import (
    CHECKPOINTS,
    fit_and_save,
    fit_of_another_run,
    fit_threads,
    load_fit,
    on_fit_threads,
)
from tasks.base import Memory

if TYPE_CHECKING:
    from methods.backbone import Backbone

LIBRARIES_BYTES = 3 * 2**29  # of a process: the libraries' own, and a sentence encoder
LAST_WORDS = 2000  # characters of a failed process's error stream that are shown
MEMORIES = "memories.json"  # in the folder of a refit: what it is fitted on in place of the task's memories


@dataclass(frozen=True)
class FitJob:
    """One fit: a method in the run's configuration, some words of which may be overridden.

    refit: the name of another set of memories than the task's, which lies in the fit's folder as `MEMORIES`.
    """

    name: str  # of the fit's folder
    method: str
    seed: int
    overrides: tuple[str, ...] = ()
    refit: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}/{self.refit}" if self.refit else self.name

    @property
    def stage(self) -> str:
        return f"fit {self.label} seed {self.seed}"

    def folder_in(self, run: Run) -> Path:
        folder = run.refit_folder(self.seed, self.name, self.refit)
        return folder if self.refit else run.fit_folder(self.seed, self.name)


def write_memories(folder: Path, memories: Sequence[Memory]) -> None:
    """What a refit in this folder is fitted on."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MEMORIES, [asdict(memory) for memory in memories])


def read_memories(folder: Path) -> tuple[Memory, ...]:
    return tuple(decode(Memory, body) for body in json.loads((folder / MEMORIES).read_text(encoding="utf-8")))


def not_made(run: Run, jobs: Iterable[FitJob]) -> list[FitJob]:
    """The jobs whose fit no earlier attempt finished."""
    return [job for job in jobs if load_fit(job.folder_in(run)) is None]


def fit_missing(config: Resolved, run: Run, missing: Sequence[FitJob], display: Display) -> None:
    """Makes fits in processes of their own where several go side by side, or several devices share one."""
    if (config.fit_processes > 1 and len(missing) > 1) or (config.fit_devices > 1 and missing):
        fit_apart(run, missing, max(1, config.fit_processes), display, config.fit_devices)


def with_processes(config: Resolved, backbone: Backbone) -> Resolved:
    """The configuration with a number in place of `fit_processes=0`: as many as have room, and threads."""
    if config.fit_processes:
        return config
    if backbone.device.type == "cuda":
        cards = cards_of(config.device) or [str(backbone.device)]
        free, most = [torch.cuda.mem_get_info(torch.device(card))[0] for card in cards], os.cpu_count() or 1
    else:
        free, most = [psutil.virtual_memory().available], torch.get_num_threads() // fit_threads()
    room = sum(int(size // fit_bytes(backbone, config.train.batch_tokens)) for size in free)
    return replace(config, raw={**config.raw, "fit_processes": max(1, min(room, most))})


def fit_bytes(backbone: Backbone, batch_tokens: int) -> int:
    """About what one fit takes on its device, on the high side: weights, and what a step keeps of a batch for its
    gradients, computed as written once and kept for its recordings once."""
    config = backbone.model.config.get_text_config()
    hidden, layers = backbone.facts.hidden_size, int(config.num_hidden_layers)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    kept = layers * (16 * hidden + 8 * int(inner)) * backbone.dtype.itemsize
    logits = 16 * len(backbone.tokenizer)  # in the model's type and in fp32, and their gradients
    weights = sum(parameter.nbytes for parameter in backbone.model.parameters())
    return int(1.5 * weights) + 2 * batch_tokens * (kept + logits) + LIBRARIES_BYTES


def cards_of(device: str) -> list[str]:
    """The cards that fits side by side are dealt out to; none where one device was named, or there is no card."""
    if device not in ("auto", "cuda") or resolve_device(device).type != "cuda":
        return []
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def command_of(run: Run, job: FitJob, devices: int) -> list[str]:
    """What fits a job in a process of its own, or in as many as there are devices to share it."""
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    words = ["-m", "pipelines.fit_processes", str(run.folder), str(job.folder_in(run)), json.dumps(asdict(job))]
    return [sys.executable, *(together if devices > 1 else []), *words]


def fit_apart(run: Run, jobs: Sequence[FitJob], processes: int, display: Display, devices: int = 1) -> None:
    """Fits and saves what the jobs name; at most `processes` at once, each shared by `devices`.

    What a user can put right comes back as MethodError. If one fails or the command is interrupted, the others
    are ended, and what was finished stays.
    """
    cards: queue.SimpleQueue[str] = queue.SimpleQueue()  # one is taken for a fit and given back behind it
    spread = cards_of(str(run.config.get("device", "auto"))) if devices == 1 else []
    for number in range(processes):
        cards.put(spread[number % len(spread)] if spread else "")
    running: list[subprocess.Popen[str]] = []
    failed = threading.Event()

    def fit(job: FitJob) -> None:
        card = cards.get()
        try:
            if not failed.is_set():
                fit_one(job, card)
        except BaseException:
            failed.set()  # at once: this worker takes the next job before the pool hears of it
            raise
        finally:
            cards.put(card)

    def hear(job: FitJob, said: dict[str, Any]) -> None:
        if "error" in said:
            raise MethodError(said["error"])
        if "warning" in said:
            display.say(f"{job.label}: {said['warning']}")
        if "note" in said:
            display.say(said["note"])
        if {"stage", "done", "total"} <= said.keys():
            display(said["stage"], said["done"], said["total"])

    def fit_one(job: FitJob, card: str) -> None:
        placed = replace(job, overrides=(*job.overrides, f"device={card}")) if card else job
        words = command_of(run, placed, devices)
        folder = job.folder_in(run)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # torchrun would set 1
        with (folder / "fit.log").open("w", buffering=1, encoding="utf-8") as log:  # an unread pipe would fill up
            child = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", errors="replace", env=environment
            )
            running.append(child)
            if failed.is_set():
                child.terminate()
            assert child.stdout is not None
            for line in child.stdout:
                printed, said = heard(line)
                log.write(printed)
                if said is not None:
                    hear(job, said)
        if child.wait() != 0:
            if died_of(child.returncode):
                raise MethodError(f"fitting {job.label}: {died_of(child.returncode)}; what was done is kept")
            last_words = (folder / "fit.log").read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]
            raise RuntimeError(f"fitting {job.label} failed:\n{last_words}")
        run.finish_stage(job.stage)

    with ThreadPoolExecutor(max_workers=processes) as pool:
        waiting = [pool.submit(fit, job) for job in jobs]
        try:
            for one in wait(waiting, return_when=FIRST_EXCEPTION).done:
                one.result()
        except BaseException:
            failed.set()
            for one in waiting:
                one.cancel()
            for child in running:
                child.terminate()
            raise


def main(folder: Path, target: Path, job: FitJob) -> None:
    """Fits one method of the run in `folder` and saves it in the fit's folder, `target`."""
    from pipelines.making import key_of, load_of_run, make_method

    config = saved_config(folder, job.overrides)
    logging.getLogger("methods").setLevel(config.log_level.upper())
    logging.getLogger("methods").addHandler(Warnings(logging.WARNING))
    task = config.task.load(job.seed)
    if job.refit:
        task = replace(task, memories=read_memories(target), rest=())
    rank = int(os.environ.get("RANK", 0))
    backbone = load_of_run(config, folder, own_device(config.device))
    key = key_of(config, job.method, task, job.seed, backbone)
    runs_dir = None if config.fresh else Path(config.runs_dir)
    if rank == 0:
        method = make_method(config, job.method, task, job.seed, backbone, Lines(job.label), target)
        fit_and_save(method, target, task, key, runs_dir, lambda text: say(note=text))
        return
    if runs_dir and fit_of_another_run(key, runs_dir, target):  # the first process takes it over
        return
    with tempfile.TemporaryDirectory(prefix="recallbench-") as spare:  # an index, say, has one writer
        checkpoints = target / CHECKPOINTS  # all go on from the same
        method = make_method(config, job.method, task, job.seed, backbone, Silent(), Path(spare), checkpoints)
        with on_fit_threads():
            method.fit(task.memories, task.sft)


def own_device(device: str) -> str:
    """The device of this one of several processes: its own GPU, or the CPU that all share.

    Raises MethodError where there are fewer GPUs than processes.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None:
        return device
    if resolve_device(device).type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else Accelerate runs each as if it were alone
        return "cpu"
    if int(local) >= torch.cuda.device_count():
        raise MethodError(
            f"fit_devices={os.environ['LOCAL_WORLD_SIZE']} asks for more GPUs than torch sees here "
            f"({torch.cuda.device_count()}); set fit_devices to at most that"
        )
    return f"cuda:{local}"


class Warnings(logging.Handler):
    """What a fit warns of, for another process to show: its own error stream goes to a file."""

    def emit(self, record: logging.LogRecord) -> None:
        say(warning=record.getMessage())


class Silent(Display):
    """For a process whose progress is another's too."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        pass


class Lines(Display):
    """Progress for another process to read, with the fit's name: others beside it may be in the same stage."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __call__(self, stage: str, done: int, total: int) -> None:
        named = stage if stage.split()[0] == self._name else f"{self._name}: {stage}"
        say(stage=named, done=done, total=total)


if __name__ == "__main__":
    from pipelines.progress import quiet_libraries

    quiet_libraries()
    asked: dict[str, Any] = json.loads(sys.argv[3])
    job = FitJob(**asked | {"overrides": tuple(asked["overrides"])})
    as_child(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), job))
