"""Several injected vectors a memory: fitted, saved, loaded and kept, as one is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from methods.recall.calibrated import MixtureConfig

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.method import RecallConfig, RecallMethod, SilentRecallConfig
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import Memory, TaskData

NEW = Memory("new", "Skates are returned by 14.30. Lost ones cost 3 euros.", "Skates")


def method_of(backbone: Backbone, folder: Path, config: RecallConfig) -> RecallMethod:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=1500), folder=folder)
    return RecallMethod(setup, config)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [RecallConfig, SilentRecallConfig])
def test_fit_save_load_write_and_forget(
    pristine_lively: Backbone,
    regs: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: type[RecallConfig],
) -> None:
    """The saved bank decides how many vectors are fed, not the setting; writing leaves them as they are."""
    monkeypatch.setattr("methods.recall.method.load_backbone", lambda *_args: pristine_lively)
    config = recipe(vectors_per_memory=3, distil_weight=0.0, write=WriteConfig(max_steps=2))
    method = method_of(pristine_lively.clone(), tmp_path / "fit", config)
    start_MPD = method._make_bank(regs.memories, []).values_MPD
    method.fit(regs.memories, regs.sft)
    bank = method.bank
    assert bank is not None
    assert bank.values_MPD.shape == (len(regs.memories) + 1, 3, pristine_lively.hidden_size)
    assert bool((bank.values_MPD - start_MPD).norm(dim=-1).gt(1e-4).all())  # every one of them has learnt
    method.save(tmp_path / "saved")

    other = method_of(pristine_lively.clone(), tmp_path / "other", recipe(distil_weight=0.0))
    other.load(tmp_path / "saved")
    assert other.bank is not None
    fitted = bank.values_MPD
    torch.testing.assert_close(other.bank.values_MPD, fitted)
    other.write([NEW])
    for row, unit_PD in enumerate(fitted):
        torch.testing.assert_close(other.bank.memory_embeddings(row), unit_PD * bank.gain)
    other.forget([regs.memories[0].id, NEW.id])
    left = [i for i in bank.ids if i != regs.memories[0].id]
    assert other.bank.ids == left
    torch.testing.assert_close(other.bank.values_MPD, fitted[[bank.index(i) for i in left]])


def test_settings_that_feed_nothing_are_refused() -> None:
    with pytest.raises(MethodError, match="vectors_per_memory=0"):
        RecallConfig(vectors_per_memory=0)
    with pytest.raises(MethodError, match="tokens_per_vector=0"):
        WriteConfig(tokens_per_vector=0)
    with pytest.raises(MethodError, match="foreign_vector=2"):
        MixtureConfig(foreign_vector=2)
    with pytest.raises(MethodError, match="recited_weight=-1"):
        MixtureConfig(recited_weight=-1.0)
