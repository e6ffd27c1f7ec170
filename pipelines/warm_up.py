"""Teach a base to think and to read, once, before any rulebook: `python -m pipelines.warm_up to=FOLDER`.

Trains a LoRA on the general material alone (`pipelines.warm_up_data`) and leaves in the folder the adapter, in
half precision, and its card: what it was made of and by which command, its checksum, the curve on held-out rules,
and how many questions of each task are read right with the clause at hand. `model=FOLDER` then loads base and
warm-up as one. A model that has a warm-up is trained on: its adapter is what the new one begins as. A killed run
goes on with the same command. `torchrun --nproc-per-node 2 -m pipelines.warm_up ...` shares each batch between two
processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from eval.reading import WAYS, Asked, of_rules, of_task, read_right
from eval.stats import estimate
from methods import checkpoint
from methods.backbone import CARD, PACKAGED_LM, Backbone, fingerprint_of, load_backbone, warm_up_of
from methods.base import MethodError
from methods.train import LoraTrainConfig, train_lora
from pipelines.cli import main_with
from pipelines.progress import Display, quiet_libraries
from pipelines.run import write_json
from pipelines.warm_up_data import WarmUpData
from tasks.files import write_whole
from tasks.reading_rules import RULES, rules
from tasks.registry import load_task

CURVE_EVERY = 1_000_000  # tokens between two points of the curve
CURVE_RULES = 12  # held-out rules that are asked about there,
CARD_RULES = 100  # and at the end
LEARNING_RATE = 1e-3
BATCH_TOKENS = 1536  # computed on
TASKS = ("regs", "manual")  # whose dev questions are read at the end


@dataclass(frozen=True)
class Options:
    to: str = ""
    model: str = PACKAGED_LM
    max_tokens: int = 1_500_000
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"


HELP = f"""usage: python -m pipelines.warm_up to=FOLDER [key=value ...]

  model=...            the base: {PACKAGED_LM}, a folder, or a Hub id; one with a warm-up goes on from it
  max_tokens=1500000   training tokens
  seed=0 device=auto dtype=auto
"""


def measured(backbone: Backbone, asked: list[Asked]) -> dict[str, Any]:
    """Way -> the share read right, with its interval over families."""
    return {way: estimate(read_right(backbone, asked, way)).as_dict() for way in WAYS}


def material() -> dict[str, Any]:
    """What the warm-up is made of."""
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in sorted(RULES.parent.rglob("*")) if f.is_file()))
    facts = [fact for rule in rules() for fact in rule.facts]
    return {
        "rules": len(rules()),
        "held_out_rules": sum(rule.held_out for rule in rules()),
        "facts": len(facts),
        "questions": sum(len(fact.questions) for fact in facts),
        "data_sha256": digest.hexdigest(),
    }


def warm_up(options: Options) -> None:
    """Trains, measures and writes the card."""
    if not options.to:
        raise MethodError("a warm-up needs a folder for what it makes; say to=FOLDER")
    folder = Path(options.to)
    if (folder / CARD).exists():
        raise MethodError(f"{folder} holds a finished warm-up; name another folder with to=...")
    first = int(os.environ.get("RANK", "0")) == 0
    backbone = load_backbone(options.model, options.device, options.dtype, warm=False)
    before = warm_up_of(options.model)
    base = before[1]["base"] if before else options.model
    config = LoraTrainConfig(options.max_tokens, LEARNING_RATE, BATCH_TOKENS, seed=options.seed)
    data = WarmUpData(backbone, BATCH_TOKENS, options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    curve_file = folder / "curve.json"
    curve = json.loads(curve_file.read_text(encoding="utf-8")) if curve_file.exists() else []
    asked = of_rules(CURVE_RULES)
    with Display() as display:
        done = 0

        def progress(stage: str, now: int, total: int) -> None:
            nonlocal done
            done = now
            if first:
                display(stage, now, total)

        def on_epoch_end(_epoch: int) -> None:
            if first and done // CURVE_EVERY > (curve[-1]["tokens"] // CURVE_EVERY if curve else 0):
                curve.append({"tokens": done, **measured(backbone, asked)})
                write_json(curve_file, curve)
                shares = ", ".join(f"{way} {curve[-1][way]['value']:.2f}" for way in WAYS)
                display.say(f"{done} tokens: of held-out rules read right {shares} ({len(asked)} questions)")

        log = train_lora(
            backbone,
            data.epochs(),
            config,
            stage="warm-up",
            progress=progress,
            on_epoch_end=on_epoch_end,
            adapter=before[0] if before else None,
            adapter_to=folder,
            checkpoints=folder,
        )
        if not first:
            return
        digest = halved(folder, base)
        words = [word for word in sys.argv[1:] if not word.startswith("to=")]
        card: dict[str, Any] = {
            "base": base,
            "base_fingerprint": fingerprint_of(base),
            "before": before and {key: before[1].get(key) for key in ("sha256", "command", "training", "before")},
            "sha256": digest,
            "command": " ".join(["python -m pipelines.warm_up to=FOLDER", *words]),
            "options": {k: v for k, v in asdict(options).items() if k != "to"},
            "material": material(),
            "training": {**asdict(config), "tokens": log.forward_tokens, "steps": log.optimizer_steps},
            "samples": dict(log.samples),
            "curve": curve,
        }
        write_json(folder / CARD, card)
        (folder / checkpoint.NAME).unlink(missing_ok=True)
        torch.set_num_threads(os.cpu_count() or 1)  # the other processes are done
        display.say("reading alone: held-out rules, " + ", ".join(TASKS))
        warmed = load_backbone(str(folder), options.device, options.dtype)
        sets = {"held-out rules": of_rules(CARD_RULES, seed=1)}
        sets |= {f"{task} dev": of_task(load_task(task)) for task in TASKS}
        write_json(folder / CARD, card | {"read_right": {name: measured(warmed, s) for name, s in sets.items()}})
        curve_file.unlink(missing_ok=True)
        display.say(f"{folder}: a warm-up of {base}; use it with model={folder}")


def halved(folder: Path, base: str) -> str:
    """The adapter's weights in half precision, without the path of its base; -> their SHA-256."""
    from safetensors.torch import load_file, save

    weights = folder / "adapter_model.safetensors"
    write_whole(weights, save({name: tensor.to(torch.float16) for name, tensor in load_file(weights).items()}))
    settings = folder / "adapter_config.json"
    body = json.loads(settings.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
    write_json(settings, body)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's, empty
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def main() -> None:
    quiet_libraries()
    main_with(Options, lambda: HELP, warm_up)


if __name__ == "__main__":
    main()
