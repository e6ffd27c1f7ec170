"""From a configuration to a method before its fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from methods.arms import LENDERS, gold_key
from methods.backbone import Backbone, check_weights, load_backbone
from methods.base import Method
from methods.registry import build_method
from methods.setup import MethodSetup
from methods.train import Progress
from pipelines.config import Resolved
from pipelines.run import read_json
from pipelines.saved_fits import CHECKPOINTS
from tasks.base import Message, TaskData
from tasks.dialogues import build_dialogues


def make_method(
    config: Resolved,
    name: str,
    task: TaskData,
    seed: int,
    backbone: Backbone,
    display: Progress,
    folder: Path,
    checkpoints: Path | None = None,
) -> Method:
    """A method before its fit. Only the oracle arms get to know which clause a question rests on.

    folder: for what it keeps, its fit's own. checkpoints: of its training, in that folder unless said otherwise.
    """
    setup = MethodSetup(
        backbone=backbone,
        train=replace(config.train, seed=seed),
        examples=config.examples,
        sampling=config.sampling,
        progress=display,
        folder=folder,
        checkpoints=checkpoints or folder / CHECKPOINTS,
    )
    gold = gold_of(config, task, seed) if name in LENDERS else {}
    return build_method(name, setup, config.method_configs, gold)


def gold_of(config: Resolved, task: TaskData, seed: int) -> dict[str, tuple[str, ...]]:
    """The clauses that answer each question, and each turn of the dialogues given what the user said before."""
    gold = {qa.question: qa.memory_ids for qa in task.questions}
    for dialogue in build_dialogues(task, seed, "test", config.dialogues):
        said: list[Message] = []
        for turn in dialogue.turns:
            said.append(Message("user", turn.user))
            if turn.qa is not None:
                gold[gold_key(said)] = turn.qa.memory_ids
    return gold


def load_of_run(config: Resolved, folder: Path, device: str) -> Backbone:
    """The model of a run, in the run's own dtype. Raises MethodError where it has changed since the run began."""
    dtype = str(read_json(folder / "environment.json").get("dtype", config.dtype))
    backbone = load_backbone(config.model, device, dtype)
    version = read_json(folder / "config.json").get("model_version")
    if version:
        check_weights(backbone, version)
    return backbone
