"""From a configuration to a method before its fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from eval.arms import ARMS, CONFIGURED_AS, LENDERS, build_arm, gold_key
from eval.lifecycle_plan import plan_lifecycle
from methods.backbone import Backbone, check_weights, load_backbone
from methods.base import Method
from methods.registry import build_method, settings_of
from methods.setup import MethodSetup
from methods.train import Progress
from pipelines.config import Resolved
from pipelines.run import code_version, read_json
from pipelines.saved_fits import CHECKPOINTS
from tasks.base import Memory, Message, TaskData
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

    A person's rulebook is one, however few of its clauses a run trains on and asks about: methods that search find
    among all. Control arms, whose lookup is given or is the whole prompt, keep to the slice.
    folder: for what it keeps, its fit's own. checkpoints: of its training, in that folder unless said otherwise.
    """
    setup = MethodSetup(
        backbone=backbone,
        train=replace(config.train, seed=seed),
        examples=config.examples,
        sampling=config.sampling,
        indexed=indexed_by(name, config, task, seed),
        progress=display,
        folder=folder,
        checkpoints=checkpoints or folder / CHECKPOINTS,
    )
    if name in ARMS:
        gold = gold_of(config, task, seed) if name in LENDERS else {}
        return build_arm(name, setup, config.method_configs, gold)
    return build_method(name, setup, config.method_configs)


def key_of(config: Resolved, name: str, task: TaskData, seed: int, backbone: Backbone) -> str:
    """16 hex digits over all that decides a fit; "" for a control arm's own, which knows the right clauses."""
    if name in LENDERS:
        return ""
    body = {
        "method": name,
        "settings": settings_of(CONFIGURED_AS.get(name, name), config.method_configs),
        "train": replace(config.train, seed=seed),
        "examples": config.examples,
        "memories": task.memories,
        "indexed": indexed_by(name, config, task, seed),
        "conversations": task.sft,
        "model": (backbone.fingerprint, backbone.dtype_name, backbone.device.type),
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(body, default=asdict).encode()).hexdigest()[:16]


def indexed_by(name: str, config: Resolved, task: TaskData, seed: int) -> list[Memory]:
    """What a method must find its way among, beside what it is fitted on."""
    return [] if name in ARMS else indexed_beside(config, task, seed)


def indexed_beside(config: Resolved, task: TaskData, seed: int) -> list[Memory]:
    """The clauses that a slice left out, but for those that are written later on: they must be news then."""
    if not task.rest or not config.evaluation.lifecycle:
        return list(task.rest)
    whole = replace(config.task, num_clauses=0).load(seed)
    news = {memory.id for memory in plan_lifecycle(task, whole, seed, config.lifecycle).written}
    return [memory for memory in task.rest if memory.id not in news]


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
