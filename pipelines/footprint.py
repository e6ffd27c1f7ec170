"""Peak memory of each method alone: a fresh process loads the fitted method and answers.

In one process with its rivals a method's peak would hold their weights too. `python -m pipelines.footprint
RUN SEED METHOD` prints one JSON line; `footprints` starts one such process a method.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.runner import Footprint
from pipelines.progress import Display

NUM_ANSWERS = 3


def footprints(run_folder: Path, seed: int, methods: Sequence[str], display: Display) -> dict[str, Footprint]:
    """Method -> its peak memory. A failing process is an error: a peak is never guessed."""
    found: dict[str, Footprint] = {}
    for done, method in enumerate(methods):
        display("memory of each method", done, len(methods))
        words = [sys.executable, "-m", "pipelines.footprint", str(run_folder), str(seed), method]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"measuring the memory of {method} failed:\n{result.stderr[-2000:]}")
        found[method] = Footprint(**json.loads(result.stdout.splitlines()[-1]))
    display("memory of each method", len(methods), len(methods))
    return found


def measure(run_folder: Path, seed: int, name: str) -> Footprint:
    """Loads one fitted method from its run folder and answers a few questions."""
    from eval.runner import PeakMemory, cost_questions
    from methods.arms import borrows_from
    from methods.backbone import load_backbone
    from pipelines.compare import make_method
    from pipelines.config import saved_config

    config = saved_config(run_folder)
    task = config.task.load(seed)
    facts = json.loads((run_folder / "environment.json").read_text(encoding="utf-8"))
    folder = run_folder / "fits" / str(seed) / borrows_from(name, config.run_methods)
    with PeakMemory() as memory:
        backbone = load_backbone(config.model, config.device, facts["dtype"])
        method = make_method(config, name, task, seed, backbone, Display(), folder)
        method.load(folder)
        for _, ctx in cost_questions(task, seed, NUM_ANSWERS, config.evaluation.max_new_tokens):
            method.answer(ctx)
    return Footprint(memory.peak_bytes, memory.kind)


if __name__ == "__main__":
    from pipelines.progress import quiet_libraries

    quiet_libraries()
    peak = measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.write(json.dumps({"peak_bytes": peak.peak_bytes, "kind": peak.kind}) + "\n")
