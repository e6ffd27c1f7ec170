"""The short way through the trained rows gives what PEFT's own layers give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from methods import control_rows
from methods.backbone import Backbone


@pytest.fixture
def peft_model(tiny: Backbone) -> Iterator[Any]:
    """The tiny model with trainable control rows, away from their start, beside others that stay."""
    rows = list(tiny.ids.new_rows)
    model = get_peft_model(
        tiny.clone().model, LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=rows)
    )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data.normal_()
    yield model


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and "trainable_tokens_delta" in n}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("part", ["embed", "head"])
def test_outputs_and_gradients_equal_pefts(peft_model: Any, tiny: Backbone, part: str) -> None:
    base = peft_model.get_base_model()
    if part == "embed":
        layer, mine = base.get_input_embeddings(), control_rows.embed
        given = torch.tensor([[1, tiny.ids.recall, 5], [tiny.ids.think, 2, tiny.ids.recall]])
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
