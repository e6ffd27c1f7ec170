"""A stage of training kept on disk as it goes, so that a killed one goes on: weights, optimiser, what was counted.

Samples are drawn by seed, so the state of a sampler is how many epochs it has drawn. Safetensors and JSON alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def save_checkpoint(
    folder: Path, weights: Sequence[nn.Parameter], optimizer: Any, counted: Mapping[str, Any]
) -> None:
    """Writes `folder` anew, whole or not at all. counted: JSON values, e.g. tokens and epochs."""
    from safetensors.torch import save_file

    states = optimizer.state
    tensors: dict[str, Tensor] = {}
    for n, weight in enumerate(weights):
        tensors[f"{n}.weight"] = weight.detach().contiguous()
        tensors |= {f"{n}.{name}": value.contiguous() for name, value in states.get(weight, {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "checkpoint.part"
    save_file(tensors, part, {"counted": json.dumps(counted)})
    part.replace(folder / "checkpoint.safetensors")


def load_checkpoint(folder: Path, weights: Sequence[nn.Parameter], optimizer: Any) -> dict[str, Any] | None:
    """Sets weights and optimiser as they were, and returns what was counted; None where nothing was kept."""
    from safetensors import safe_open

    file = folder / "checkpoint.safetensors"
    if not file.exists():
        return None
    with safe_open(file, "pt") as kept:
        for key in kept.keys():  # noqa: SIM118 - no mapping
            n, name = key.split(".")
            weight, value = weights[int(n)], kept.get_tensor(key)
            if name == "weight":
                weight.data.copy_(value)
            else:
                there = value.ndim or optimizer.param_groups[0].get("fused")  # a fused update counts on the device
                optimizer.state[weight][name] = value.to(weight.device) if there else value
        return dict(json.loads(kept.metadata()["counted"]))
