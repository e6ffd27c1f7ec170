"""Peak memory of each method alone, while it answers: a fresh process loads the fitted method, then is watched.

In one process with its rivals a method's peak would hold their weights too. What loading and merging need for a
moment is no part of it. `python -m pipelines.footprint RUN SEED METHOD` prints one JSON line; `footprints` starts
one such process a method, on a card side by side: what its allocator counts is a process's own.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eval.arms import borrows_from
from eval.runner import Footprint, PeakMemory, cost_questions
from methods.backbone import resolve_device
from methods.base import MethodError
from pipelines.children import as_child, died_of, heard, say
from pipelines.config import saved_config
from pipelines.making import load_of_run, make_method
from pipelines.progress import Display, quiet_libraries
from pipelines.run import read_json, write_json
from pipelines.saved_fits import restore

FOOTPRINTS = "footprints.json"
NUM_ANSWERS = 2  # in a measurement
NUM_MEASUREMENTS = 3  # one after another in the same process


def footprints(run_folder: Path, seed: int, methods: Sequence[str], display: Display) -> dict[str, Footprint]:
    """Method -> its peak memory. A failing process is an error: a peak is never guessed.

    What was measured stays in the run folder: an interrupted pass does not measure again.
    """
    on_cpu = resolve_device(saved_config(run_folder).device).type == "cpu"
    stage, file = "memory of each method", run_folder / FOOTPRINTS
    kept: dict[str, Any] = read_json(file) if file.exists() else {}
    own = kept.setdefault(str(seed), {})
    missing = [method for method in methods if method not in own]
    display(stage, len(methods) - len(missing), len(methods))
    with ThreadPoolExecutor(max_workers=1 if on_cpu else max(1, len(missing))) as pool:
        measured = pool.map(partial(measured_apart, run_folder, seed), missing)
        for method, body in zip(missing, measured, strict=True):
            own[method] = body
            write_json(file, kept)
            display(stage, sum(name in own for name in methods), len(methods))
    found = {method: own[method] | {"peaks_bytes": tuple(own[method]["peaks_bytes"])} for method in methods}
    return {method: Footprint(**body) for method, body in found.items()}


def command_of(run_folder: Path, seed: int, method: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.footprint", str(run_folder), str(seed), method]


def measured_apart(run_folder: Path, seed: int, method: str) -> dict[str, Any]:
    """What a process of its own says of the method's memory."""
    words = command_of(run_folder, seed, method)
    result = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)
    said = [told for _, told in map(heard, result.stdout.splitlines()) if told is not None]
    for told in said:
        if "error" in told:
            raise MethodError(told["error"])
    if result.returncode != 0 or not said:
        cause = died_of(result.returncode)
        if cause:
            raise MethodError(f"measuring the memory of {method}: {cause}")
        raise RuntimeError(f"measuring the memory of {method} failed:\n{result.stderr[-2000:]}")
    return said[-1]


def measure(run_folder: Path, seed: int, name: str) -> Footprint:
    """Loads one fitted method from its run folder, lets it answer once, then watches further answers.

    The first answer loads what only answering needs, RAG's encoder say, and is not watched.
    """
    config = saved_config(run_folder)
    task = config.task.load(seed)
    folder = run_folder / "fits" / str(seed) / borrows_from(name, config.run_methods)
    backbone = load_of_run(config, run_folder, config.device)
    measured = []
    # The fit's folder is another process's, which answers from the index there.
    with tempfile.TemporaryDirectory(prefix="recallbench-", ignore_cleanup_errors=True) as scratch:
        method = make_method(config, name, task, seed, backbone, Display(), Path(scratch))
        restore(method, folder)
        questions = cost_questions(task, seed, NUM_ANSWERS, config.evaluation.max_new_tokens)
        method.answer(questions[0].context)
        for _ in range(NUM_MEASUREMENTS):
            release_memory()
            with PeakMemory(backbone.device) as memory:
                for asked in questions:
                    method.answer(asked.context)
            measured.append(memory)
    peaks = tuple(memory.peak_bytes for memory in measured)
    reserved = [memory.reserved_bytes for memory in measured if memory.reserved_bytes is not None]
    return Footprint(max(peaks), measured[0].kind, peaks, max(reserved, default=None))


def release_memory() -> None:
    """Gives back what is free: the C allocator else keeps pages of loading, and the resident set holds them."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    quiet_libraries()
    as_child(lambda: say(**asdict(measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))
