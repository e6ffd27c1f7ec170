"""What every test shares: no network, one thread, and a random model that is cheap to copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Read at the import of the libraries, so set before any of them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on a busy machine: 80 times slower

if TYPE_CHECKING:
    from methods.backbone import Backbone

settings.register_profile("busy", deadline=None)  # the machine may be at work on something else
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: over three seconds; leave out with -m 'not slow'")


@pytest.fixture(scope="session")
def pristine() -> Backbone:
    """The tiny random model as it is loaded. Shared: never change it, clone it."""
    from methods.backbone import load_backbone

    return load_backbone("tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def pristine_lively(pristine: Backbone) -> Backbone:
    """The tiny model with large random weights: fresh from its start it only repeats its last token."""
    import torch

    backbone = pristine.clone()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "layers" in name and parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5)
    return backbone


@pytest.fixture
def tiny(pristine: Backbone) -> Backbone:
    """A copy of its own."""
    return pristine.clone()


@pytest.fixture
def lively(pristine_lively: Backbone) -> Backbone:
    """A copy of its own."""
    return pristine_lively.clone()
