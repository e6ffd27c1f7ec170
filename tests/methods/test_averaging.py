"""Weights averaged over the last part of a training: which steps count, what is saved, who keeps the last ones."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.averaging import WeightAverage
from safetensors.torch import load_file
from test_train import CONFIG, batches_of, term
from torch import nn

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.method import RecallMethod
from methods.recall.spec import SpecRecallMethod
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, train_lora

Weights = dict[str, torch.Tensor]


def test_the_mean_of_what_was_counted() -> None:
    seen = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.zeros(3, 5))
    average = WeightAverage([parameter])
    for values in seen:
        parameter.data.copy_(values)
        average.add()
    average.take()
    torch.testing.assert_close(parameter.data, seen.mean(dim=0))


def test_nothing_counted_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    WeightAverage([parameter]).take()
    assert torch.equal(parameter.data, torch.ones(2))


def trained(backbone: Backbone, average_from: float, folder: Path) -> tuple[Weights, list[Weights], float]:
    """The saved adapter and the keys, the same after each step, and the share of the budget a step takes."""
    memory = term(backbone)
    memory.keys_MKD.requires_grad_(True)
    steps: list[Weights] = []

    def seen(peft_model: Any, _epoch: int) -> None:
        live = {name: p.detach().clone() for name, p in peft_model.named_parameters() if "lora_" in name}
        steps.append(live | {"keys": memory.keys_MKD.detach().clone()})

    batch = batches_of(backbone)[1]
    log = train_lora(
        backbone,
        itertools.repeat([batch]),
        replace(CONFIG, average_from=average_from),
        stage="test",
        memory=memory,
        adapter_to=folder,
        on_epoch_end=seen,
    )
    assert len(steps) == log.optimizer_steps
    saved = load_file(folder / "adapter_model.safetensors")
    named = {name.replace(".default", ""): name for name in steps[-1]}
    found = {named[name]: tensor for name, tensor in saved.items() if name in named}
    share = log.forward_tokens / log.optimizer_steps / CONFIG.max_tokens
    return found | {"keys": memory.keys_MKD.detach()}, steps, share


@pytest.mark.parametrize("average_from", [0.0, 0.5, 0.8, 1.0])
def test_what_is_saved_is_the_mean_of_the_last_part(lively: Backbone, tmp_path: Path, average_from: float) -> None:
    """Adapter and memory vectors alike; at 1 the last weights to the bit."""
    saved, steps, share = trained(lively, average_from, tmp_path)
    counted = [weights for n, weights in enumerate(steps, 1) if n * share >= average_from]
    assert len(steps) > 8
    assert (len(counted) == 1) == (average_from == 1.0)
    assert saved.keys() == steps[-1].keys()
    for name, tensor in saved.items():
        if average_from == 1.0:
            assert torch.equal(tensor, steps[-1][name]), name
        torch.testing.assert_close(tensor, torch.stack([weights[name] for weights in counted]).mean(dim=0))


def test_the_specification_takes_its_last_weights_and_so_does_step_1(lively: Backbone) -> None:
    setup = MethodSetup(lively, LoraTrainConfig(average_from=0.5))
    assert [step.average_from for step in RecallMethod(setup)._budgets(0.2)] == [1.0, 0.5]
    assert [step.average_from for step in SpecRecallMethod(setup)._budgets(0.2)] == [1.0, 1.0]


@pytest.mark.parametrize("average_from", [-0.1, 1.5])
def test_a_share_out_of_range_is_one_sentence(average_from: float) -> None:
    with pytest.raises(MethodError, match=r"train\.average_from=.* is not a share; choose from 0 to 1"):
        LoraTrainConfig(average_from=average_from)
