"""How far two fits of equal settings differ, and by what: `python benchmarks/equal_fits.py --to FOLDER`.

A method is fitted on one slice of `regs` several times, each time in a process of its own and with one thing other
than in the first: nothing, the threads, the seed of the training alone (which samples come in which order, and how
LoRA begins), the type of the weights, where this machine computes bf16. Then dev questions are asked. What was
fitted is not fitted again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from methods.backbone import load_backbone, resolve_dtype
from methods.base import Context
from methods.registry import build_method
from methods.setup import MethodSetup
from pipelines.cli import compose_config
from pipelines.config import resolve
from pipelines.progress import Display, quiet_libraries
from tasks.base import Message
from tasks.keys import is_correct
from tasks.registry import load_task

FIRST: dict[str, Any] = {"threads": 1, "dtype": "float32", "seed": 0}
OTHER: dict[str, dict[str, Any]] = {
    "nothing": {},
    "two threads": {"threads": 2},
    "training seed 1": {"seed": 1},
    "training seed 2": {"seed": 2},
    "bfloat16": {"dtype": "bfloat16"},
}


def fit_and_ask(method_name: str, clauses: int, tokens: int, way: dict[str, Any], folder: Path) -> None:
    """One fit, and what it answers, in `folder`."""
    config = resolve(compose_config("compare", ["task=regs"]))
    task = load_task("regs", clauses, 0)
    with Display() as display:
        setup = MethodSetup(
            backbone=load_backbone(config.model, "cpu", way["dtype"]),
            train=replace(config.train, max_tokens=tokens, seed=way["seed"]),
            examples=config.examples,
            progress=display,
            folder=folder,
        )
        method = build_method(method_name, setup, config.method_configs)
        method.fit(task.memories, task.sft)
    asked = list(task.held_out("dev", "single"))
    contexts = [Context((Message("user", qa.question),), config.evaluation.max_new_tokens) for qa in asked]
    size = config.evaluation.batch_size
    parts = [contexts[n : n + size] for n in range(0, len(contexts), size)]
    answers = [answer for part in parts for answer in method.answer_batch(part)]
    told = [{"raw": a.raw, "right": is_correct(a.final, qa)} for a, qa in zip(answers, asked, strict=True)]
    (folder / "answers.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def weights_of(folder: Path) -> torch.Tensor:
    """All weights of a fit's adapters, in one row."""
    files = sorted(folder.glob("adapters/**/*.safetensors"))
    tensors = [tensor for file in files for _, tensor in sorted(load_file(file).items())]
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--to", type=Path, required=True, help="a folder for the fits")
    parser.add_argument("--method", default="recall", help="recall, sft or rag (default: recall)")
    parser.add_argument("--clauses", type=int, default=12, help="of the slice (default: 12)")
    parser.add_argument("--tokens", type=int, default=40_000, help="training tokens of a fit (default: 40000)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    ways = {"the first": FIRST} | {name: FIRST | way for name, way in OTHER.items()}
    if options.one:
        folder = options.to / options.one.replace(" ", "-")
        fit_and_ask(options.method, options.clauses, options.tokens, ways[options.one], folder)
        return
    told: dict[str, list[dict[str, Any]]] = {}
    if resolve_dtype("auto", torch.device("cpu")) != torch.bfloat16:
        del ways["bfloat16"]
    for name, way in ways.items():
        folder = options.to / name.replace(" ", "-")
        if not (folder / "answers.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            environment = {**os.environ, "OMP_NUM_THREADS": str(way["threads"])}
            subprocess.run([sys.executable, *sys.argv, "--one", name], check=True, env=environment)
        told[name] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
        first, own = (weights_of(options.to / part.replace(" ", "-")) for part in ("the first", name))
        pairs = list(zip(told["the first"], told[name], strict=True))
        right = sum(b["right"] for _, b in pairs)
        said = f"{name}: {right} of {len(pairs)} right"
        if name != "the first":
            same = sum(a["raw"] == b["raw"] for a, b in pairs)
            turned = sum(a["right"] != b["right"] for a, b in pairs)
            distance = float((first - own).norm() / first.norm())
            said = f"other in {said}; the same answers {same}, right in one alone {turned}; "
            said += f"weights {distance:.2g} off"
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
