"""Runs `python -m pipelines.compare ...` in this process, on a model and a budget made for tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eval.records import CostRecord, TurnRecord
from eval.runner import Footprint
from methods.backbone import Backbone
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
    "evaluation.bootstrap_resamples=50",
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
