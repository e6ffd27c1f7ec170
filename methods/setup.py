"""What every method is built from: a backbone of its own and the settings that all methods share."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from methods.backbone import Backbone
from methods.base import FitReport, MethodError
from methods.decode import Sampling
from methods.train import LoraTrainConfig, Progress, TrainLog, no_progress
from tasks.base import Memory
from tasks.examples import ExampleConfig


@dataclass
class MethodSetup:
    """Same budget, LoRA, examples and sampling for every method; weights and folder are the method's own."""

    backbone: Backbone
    train: LoraTrainConfig = field(default_factory=LoraTrainConfig)
    examples: ExampleConfig = field(default_factory=ExampleConfig)
    sampling: Sampling = field(default_factory=Sampling)
    progress: Progress = no_progress
    indexed: Sequence[Memory] = ()  # what a search must find its way among, beside the memories of the fit
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="recallbench-")))
    checkpoints: Path | None = None  # where fits keep their state as they train; None: nowhere

    @property
    def adapters(self) -> Path:
        """Where fits leave their adapters, one folder a stage."""
        return self.folder / "adapters"

    def checkpoint_of(self, stage: str) -> Path | None:
        """A folder for the checkpoints of one stage of a fit."""
        return self.checkpoints / stage if self.checkpoints else None

    @property
    def adapter_bytes(self) -> int:
        """Of the weights in all adapters that this fit has left."""
        return sum(file.stat().st_size for file in self.adapters.rglob("*.safetensors"))

    def copy_adapters(self, path: Path) -> None:
        """Copies the fit's adapters to `path`/adapters, unless they stand there already."""
        target = path / "adapters"
        if self.adapters.resolve() == target.resolve():
            return
        if not self.adapters.exists():
            raise MethodError(f"nothing to save: no fit has left adapters in {self.adapters}; call fit first")
        shutil.copytree(self.adapters, target, dirs_exist_ok=True)

    def report(
        self, started: float, stages: Mapping[str, TrainLog], index_bytes: int, notes: Mapping[str, float]
    ) -> FitReport:
        """What a fit has cost. started: on `time.perf_counter`; stages: by what their curves are called."""
        logs = stages.values()
        return FitReport(
            seconds=time.perf_counter() - started + sum(log.earlier_s for log in logs),
            forward_tokens=sum(log.forward_tokens for log in logs),
            optimizer_steps=sum(log.optimizer_steps for log in logs),
            bytes_stored=self.adapter_bytes + index_bytes,
            curves={f"{stage}/{k}": tuple(v) for stage, log in stages.items() for k, v in log.losses.items()},
            notes=dict(notes),
            index_bytes=index_bytes,
            samples=dict(sum((log.samples for log in logs), Counter[str]())),
        )
