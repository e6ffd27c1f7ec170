"""The short way through PEFT's LoRA layers gives what PEFT's own forward gives."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from methods.lora import fused


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


def adapted(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(Net().to(dtype), LoraConfig(r=3, lora_alpha=5, target_modules=["first", "second"]))
    for name, parameter in model.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter)
    return model


def computed(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of what is trained and of the input."""
    x = x.clone().requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.autocast("cpu", torch.bfloat16, enabled=next(model.parameters()).dtype is torch.bfloat16):
        out = model(x)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out, *torch.autograd.grad((out.float() * weights).sum(), [x, *trained])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_equal_pefts(dtype: torch.dtype) -> None:
    model, x = adapted(dtype), torch.randn(2, 7, 12).to(dtype)
    expected = computed(model, x)
    with fused(model):
        found = computed(model, x)
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype and float(other.abs().max()) > 0
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


def test_pefts_switches_still_count() -> None:
    model, x = adapted(), torch.randn(4, 12)
    with torch.no_grad(), model.disable_adapter():
        plain = model(x)
        with fused(model):
            assert torch.equal(model(x), plain)
    assert not torch.allclose(model(x), plain)


def test_afterwards_the_layers_are_pefts_again() -> None:
    model = adapted()
    with pytest.raises(RuntimeError), fused(model):
        raise RuntimeError
    assert not any("forward" in vars(layer) for layer in model.modules())
