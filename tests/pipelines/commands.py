"""Runs `python -m pipelines.compare ...` in this process, on a model and a budget made for tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from eval.records import CostRecord, TurnRecord
from eval.runner import Footprint
from methods.backbone import Backbone, resolve_device
from pipelines import compare
from pipelines.cli import main_of

METHODS = ("recall", "sft", "rag")
SMALL = (
    "preset=smoke",
    "device=cpu",
    "dtype=float32",
    "train.max_tokens=300",
    "evaluation.max_new_tokens=10",
    "evaluation.batch_size=4",
    "evaluation.timed_questions=2",
    "methods.recall.vectors_per_memory=1",  # few tokens are said
)


@dataclass(frozen=True)
class Finished:
    """A comparison that is over."""

    folder: Path
    summary: dict[str, Any]
    turns: list[TurnRecord]
    costs: list[CostRecord]
    shown: str
    mlflow_uri: str


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """As a user would, but for the new process."""
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    main_of("compare", compare.run_and_show)


def use(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    """A model that says more than one thing, no processes of its own, and a code version that stands still."""

    def no_process(_folder: Path, _seed: int, methods: list[str], _display: Any) -> dict[str, Footprint]:
        return {name: Footprint(1_000_000, "rss") for name in methods}

    monkeypatch.setattr(compare, "load_backbone", lambda *_args: backbone.clone())
    monkeypatch.setattr(compare, "footprints", no_process)
    monkeypatch.setattr("pipelines.run.code_version", lambda: "0" * 12)  # others may be editing


def run_folders(runs_dir: Path) -> list[Path]:
    return sorted(folder for folder in runs_dir.glob("*/*") if folder.is_dir() and not folder.parent.is_symlink())


def said_by_every_method(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    """Fitted methods load a model that says, whatever it is asked: a think, one recall, the answer 42."""
    ids, letters = backbone.ids, backbone.tokenizer.get_vocab()
    script = [ids.think, ids.recall, None, letters["R"], ids.recall_end, ids.think_end, letters["4"], letters["2"]]
    script.append(ids.eos)
    talker = backbone.clone()
    fed: list[int] = []  # places of the tokens of a forward, counted from the prompt's last one, which is 0
    prompt = 0

    def begin(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        nonlocal prompt
        places = inputs["position_ids"][0].tolist()
        if inputs["past_key_values"].get_seq_length() == 0:
            prompt = places[-1]
        fed[:] = [place - prompt for place in places]

    def push(_module: Any, _args: Any, logits_BTV: Tensor) -> Tensor:
        if logits_BTV.dim() == 3 and not logits_BTV.requires_grad:  # in generation alone
            logits_BTV = logits_BTV.clone()
            for at, place in enumerate(fed[-logits_BTV.shape[1] :]):
                if place < len(script) and script[place] is not None:
                    logits_BTV[:, at, script[place]] = 1e6
        return logits_BTV

    talker.model.register_forward_pre_hook(begin, with_kwargs=True)
    talker.model.get_output_embeddings().register_forward_hook(push)
    monkeypatch.setattr("pipelines.making.load_backbone", lambda _, device, _dtype: checked(talker, device))
    monkeypatch.setattr("methods.recall.spec.load_backbone", lambda *_args: backbone.clone())


def checked(backbone: Backbone, device: str) -> Backbone:
    resolve_device(device)
    return backbone.clone()
