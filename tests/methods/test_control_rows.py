"""The short way through the trained rows gives what PEFT's own layers give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_families import SIZES, gpt2, save_family, save_model
from torch.nn import functional as F

from methods import control_rows
from methods.backbone import Backbone, load_backbone


@pytest.fixture(params=["tiny", "llama", "gemma3_text"])
def untouched(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    """A tied head, one of its own, and an embedding that scales what it returns."""
    name = request.param if request.param == "tiny" else str(save_family(request.param, tmp_path))
    return load_backbone(name, device="cpu", dtype="float32")


def with_rows(backbone: Backbone) -> Any:
    """The model with trainable control rows, away from their start, beside others that stay."""
    matrices = {name: list(backbone.ids.new_rows) for name in backbone.facts.trained_matrices}
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=matrices)
    model = get_peft_model(backbone.clone().model, config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data.normal_()
    return model


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and "trainable_tokens_delta" in n}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


@pytest.mark.parametrize("part", ["embed", "head"])
def test_outputs_and_gradients_equal_pefts(untouched: Backbone, part: str) -> None:
    peft_model, ids = with_rows(untouched), untouched.ids
    base = peft_model.get_base_model()
    if part == "embed":
        layer, mine = base.get_input_embeddings(), control_rows.embed
        given = torch.tensor([[1, ids.recall, 5], [ids.think, 2, ids.recall]])
    else:
        layer, mine = base.get_output_embeddings(), control_rows.head
        given = torch.randn(7, base.config.hidden_size)
    weights = torch.randn(layer(given).shape)
    assert torch.allclose(mine(layer, given), layer(given), atol=1e-6)
    expected = gradients(peft_model, (layer(given) * weights).sum())
    got = gradients(peft_model, (mine(layer, given) * weights).sum())
    assert expected.keys() == got.keys() and len(got) == 1
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(got[name], gradient, atol=1e-4)


def test_without_peft_the_layer_itself_answers(tiny: Backbone) -> None:
    layer = tiny.model.get_input_embeddings()
    ids = torch.tensor([[3, tiny.ids.recall]])
    assert torch.equal(control_rows.embed(layer, ids), layer(ids))


def test_a_head_with_a_bias_keeps_it(tmp_path: Path) -> None:
    sizes = {key: size for key, size in SIZES.items() if key != "head_dim"}
    backbone = load_backbone(str(save_model("phi", gpt2(), tmp_path, **sizes)), device="cpu", dtype="float32")
    backbone.model.lm_head.bias.data.normal_()
    peft_model = with_rows(backbone)
    states = torch.randn(7, backbone.facts.hidden_size)
    found = control_rows.head(peft_model.get_base_model().lm_head, states)
    merged = peft_model.merge_and_unload().lm_head
    assert torch.allclose(found, F.linear(states, merged.weight, backbone.model.lm_head.bias), atol=1e-5)
    assert not torch.allclose(found, backbone.model.lm_head(states), atol=1e-2)
