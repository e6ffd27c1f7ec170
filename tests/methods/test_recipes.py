"""The recipes beside the calibrated one: what is literal in recall_spec, what recall_written never trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from methods.recall.mixed_dataset import SpecMixture
from methods.recall.written import WrittenRecallConfig, WrittenRecallMethod, general_memories

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.spec import SpecRecallConfig, SpecRecallMethod
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig
from tasks.base import TaskData


def setup_of(backbone: Backbone, folder: Path, tokens: int = 2500) -> MethodSetup:
    return MethodSetup(backbone, train=LoraTrainConfig(max_tokens=tokens), folder=folder)


def test_spec_bank_is_plain(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    """Last-token states, L2-normalised, not centred; injected with norm 1; raw cosines; no null memory."""
    method = SpecRecallMethod(setup_of(pristine_lively.clone(), tmp_path))
    bank = method._make_bank(regs.memories, [])
    assert bank.ids == [m.id for m in regs.memories]
    assert not bank.center_D.any()
    assert bank.gain == 1.0
    torch.testing.assert_close(bank.embeddings_MD.norm(dim=-1), torch.ones(len(bank)))
    torch.testing.assert_close(bank.keys_MD, bank.values_MD)
    assert method._logit_scale == 1.0


def test_spec_fit_measures_its_gate_and_drops_the_segments(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    method = SpecRecallMethod(setup_of(pristine_lively.clone(), tmp_path))
    report = method.fit(regs.memories, regs.sft)
    assert method.bank is not None
    assert method.bank.ids == [m.id for m in regs.memories]
    assert 0.0 <= report.notes["segment_hit_at_1"] <= 1.0
    assert set(report.curves) == {"step1/retrieval", "step2/lm"}  # Step 2 has no loss on the query
    assert torch.equal(method.bank.keys_MD, method.bank.values_MD)


def test_spec_without_step1(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    config = SpecRecallConfig(step1=False, mixture=SpecMixture(sample_types=("memory_front",)), test_memories=0)
    method = SpecRecallMethod(setup_of(pristine_lively.clone(), tmp_path / "fit"), config)
    report = method.fit(regs.memories, regs.sft)
    assert set(report.curves) == {"step2/lm"}
    method.save(tmp_path / "saved")
    again = SpecRecallMethod(setup_of(pristine_lively.clone(), tmp_path / "again"), config)
    again.load(tmp_path / "saved")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(again.backbone.model(ids).logits, method.backbone.model(ids).logits)


def test_written_never_trains_on_a_clause(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = WrittenRecallConfig(num_general=5, write=WriteConfig(max_steps=2))
    method = WrittenRecallMethod(setup_of(pristine_lively.clone(), tmp_path), config)
    general = general_memories(regs.sft, 5)
    texts = {m.text for m in regs.memories}
    assert len(general) == 5
    assert not texts & {m.text for m in general}
    weights: list[torch.Tensor] = []
    write = method.write

    def spy(memories: object) -> object:
        weights.extend(p.clone() for p in method.backbone.model.parameters())
        return write(memories)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "write", spy)
    report = method.fit(regs.memories, regs.sft)
    assert method.bank is not None
    assert {m.id for m in regs.memories} <= set(method.bank.ids)
    assert not any(i.startswith("general/") for i in method.bank.ids)
    assert weights
    assert all(torch.equal(a, b) for a, b in zip(weights, method.backbone.model.parameters(), strict=True))
    assert report.notes["write_tokens"] > 0
    trained = report.forward_tokens - report.notes["write_tokens"]
    assert 2500 <= trained < 2500 + 2 * 500  # the budget, and in each step what is left of a last batch


def test_written_without_passages_is_an_error(pristine_lively: Backbone, regs: TaskData, tmp_path: Path) -> None:
    method = WrittenRecallMethod(setup_of(pristine_lively.clone(), tmp_path))
    with pytest.raises(MethodError, match="no reading passages"):
        method.fit(regs.memories, [c for c in regs.sft if c.kind != "reading"])
