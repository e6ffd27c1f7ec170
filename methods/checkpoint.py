"""A stage of training kept on disk as it goes, so that a killed one goes on: weights, optimiser, what was counted.

Samples are drawn by seed and nothing else is drawn, so the state of a sampler is how many epochs it has drawn, and
how many batches of the last one were trained on. Safetensors and JSON alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tasks.files import write_whole

log = logging.getLogger(__name__)

EVERY_S = 180.0  # seconds of training between two checkpoints: what a kill may cost
NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, weights: Sequence[nn.Parameter], optimizer: Any, counted: Mapping[str, Any]
) -> None:
    """Writes `folder`'s checkpoint anew, whole or not at all. counted: JSON values, e.g. tokens and epochs."""
    from safetensors.torch import save

    states = optimizer.state
    tensors: dict[str, Tensor] = {}
    for n, weight in enumerate(weights):
        tensors[f"{n}.weight"] = weight.detach().contiguous()
        tensors |= {f"{n}.{name}": value.contiguous() for name, value in states.get(weight, {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NAME, save(tensors, {"counted": json.dumps(counted)}))


def load_checkpoint(folder: Path, weights: Sequence[nn.Parameter], optimizer: Any) -> dict[str, Any] | None:
    """Sets weights and optimiser as they were, and returns what was counted; None where nothing was kept.

    A checkpoint that cannot be read is named in a warning and put away: the stage then starts anew.
    """
    file = folder / NAME
    if not file.exists():
        return None
    try:
        counted, tensors = _read(file, weights)
    except Exception as error:  # a damaged file can fail in any way
        log.warning("%s is damaged (%s); this stage of training starts anew", file, error)
        file.unlink(missing_ok=True)  # of several processes each finds it so
        return None
    for key, value in tensors.items():
        n, name = key.split(".")
        weight = weights[int(n)]
        if name == "weight":
            weight.data.copy_(value)
        else:
            there = value.ndim or optimizer.param_groups[0].get("fused")  # a fused update counts on the device
            optimizer.state[weight][name] = value.to(weight.device) if there else value
    return counted


def _read(file: Path, weights: Sequence[nn.Parameter]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All of it before anything is set. Raises where it is not whole or belongs to other weights."""
    from safetensors import safe_open

    with safe_open(file, "pt") as kept:
        counted = dict(json.loads(kept.metadata()["counted"]))
        tensors = {key: kept.get_tensor(key) for key in kept.keys()}  # noqa: SIM118 - no mapping
    for n, weight in enumerate(weights):
        if tensors[f"{n}.weight"].shape != weight.shape:
            raise ValueError("it holds weights of another shape")
    return counted, tensors
