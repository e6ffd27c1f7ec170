"""Peak memory of each method alone, while it answers: a fresh process loads the fitted method, then is watched.

In one process with its rivals a method's peak would hold their weights too. What loading and merging need for a
moment is no part of it. `python -m pipelines.footprint RUN SEED METHOD` prints one JSON line; `footprints` starts
one such process a method, on a card side by side: what its allocator counts is a process's own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from eval.runner import Footprint, PeakMemory, cost_questions
from methods.arms import borrows_from
from methods.backbone import load_backbone, resolve_device
from pipelines.config import saved_config
from pipelines.making import make_method
from pipelines.progress import Display, quiet_libraries

NUM_ANSWERS = 2  # in a measurement
NUM_MEASUREMENTS = 3  # one after another in the same process


def footprints(run_folder: Path, seed: int, methods: Sequence[str], display: Display) -> dict[str, Footprint]:
    """Method -> its peak memory. A failing process is an error: a peak is never guessed."""
    on_cpu = resolve_device(saved_config(run_folder).device).type == "cpu"
    stage = "memory of each method"
    display(stage, 0, len(methods))

    def watched(method: str) -> Footprint:
        words = [sys.executable, "-m", "pipelines.footprint", str(run_folder), str(seed), method]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"measuring the memory of {method} failed:\n{result.stderr[-2000:]}")
        body = json.loads(result.stdout.splitlines()[-1])
        return Footprint(**body | {"peaks_bytes": tuple(body["peaks_bytes"])})

    found: dict[str, Footprint] = {}
    with ThreadPoolExecutor(max_workers=1 if on_cpu else max(1, len(methods))) as pool:
        for method, footprint in zip(methods, pool.map(watched, methods), strict=True):
            found[method] = footprint
            display(stage, len(found), len(methods))
    return found


def measure(run_folder: Path, seed: int, name: str) -> Footprint:
    """Loads one fitted method from its run folder, lets it answer once, then watches further answers.

    The first answer loads what only answering needs, RAG's encoder say, and is not watched.
    """
    config = saved_config(run_folder)
    task = config.task.load(seed)
    facts = json.loads((run_folder / "environment.json").read_text(encoding="utf-8"))
    folder = run_folder / "fits" / str(seed) / borrows_from(name, config.run_methods)
    backbone = load_backbone(config.model, config.device, facts["dtype"])
    method = make_method(config, name, task, seed, backbone, Display(), folder)
    method.load(folder)
    questions = cost_questions(task, seed, NUM_ANSWERS, config.evaluation.max_new_tokens)
    method.answer(questions[0].context)
    measured = []
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
    peak = measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.write(json.dumps(asdict(peak)) + "\n")
