"""A warm-up from the command to a model that loads: the card, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraModel
from safetensors.torch import load_file

from methods.backbone import CARD, PACKAGED_LM, THINK_LM, WARMED, load_backbone
from methods.base import MethodError
from pipelines import warm_up as command
from pipelines.warm_up import Options, warm_up


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.warm_up_data.PASSAGES", 3)
        patch.setattr(command, "CARD_RULES", 1)
        patch.setattr(command, "CURVE_RULES", 1)
        patch.setattr(command, "CURVE_EVERY", 3000)
        patch.setattr(command, "TASKS", ())
        patch.setattr("eval.reading.MAX_NEW_TOKENS", 4)
        yield patch


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory, small: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("warm") / "up"
    warm_up(Options(str(folder), "tiny", max_tokens=12_000, dtype="float32", device="cpu"))
    return folder


def test_the_card_says_what_it_was_made_of(warmed: Path) -> None:
    card = json.loads((warmed / CARD).read_text(encoding="utf-8"))
    assert card["base"] == "tiny"
    assert card["training"]["tokens"] >= 12_000
    assert card["material"]["rules"] >= 1000
    assert [point["tokens"] for point in card["curve"]]
    assert set(card["read_right"]["held-out rules"]) == {"recited", "in the prompt"}
    written = "".join(file.read_text(encoding="utf-8") for file in warmed.glob("*.json"))
    assert str(Path.home()) not in written  # no path of a machine


def test_the_folder_is_a_model(warmed: Path) -> None:
    plain = load_backbone("tiny", "cpu", "float32")
    model = load_backbone(str(warmed), "cpu", "float32")
    assert model.ids == plain.ids
    assert model.fingerprint != plain.fingerprint
    before, after = plain.model.state_dict(), model.model.state_dict()
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_how_a_device_rounds_the_merged_weights_is_no_other_model(
    warmed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a fit made on a card could not be loaded at home."""
    model = load_backbone(str(warmed), "cpu", "float32")
    merge = LoraModel.merge_and_unload

    def rounded(tuner: LoraModel) -> Any:
        merged: Any = merge(tuner)
        merged.load_state_dict({name: tensor * (1 + 1e-6) for name, tensor in merged.state_dict().items()})
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", rounded)
    other = load_backbone(str(warmed), "cpu", "float32")
    assert not all(map(torch.equal, model.model.state_dict().values(), other.model.state_dict().values()))
    assert other.fingerprint == model.fingerprint


def test_a_damaged_one_is_refused(warmed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(warmed, tmp_path / "damaged")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(MethodError, match="not those of its card"):
        load_backbone(str(folder))


def test_one_of_another_base_is_refused(warmed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(warmed, tmp_path / "other")
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps(card | {"base_fingerprint": "0" * 12}), encoding="utf-8")
    with pytest.raises(MethodError, match="other weights of tiny"):
        load_backbone(str(folder))
    with pytest.raises(MethodError, match="other weights of tiny"):
        warm_up(Options(str(tmp_path / "on"), str(folder), device="cpu"))
    assert not (tmp_path / "on").exists()


def test_a_finished_one_is_not_written_over(warmed: Path) -> None:
    with pytest.raises(MethodError, match="holds a finished warm-up"):
        warm_up(Options(str(warmed), "tiny"))
    with pytest.raises(MethodError, match="say to=FOLDER"):
        warm_up(Options())


def test_a_warm_up_goes_on_from_the_one_before(warmed: Path, small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without learning it is that one."""
    small.setattr(command, "LEARNING_RATE", 0.0)
    warm_up(Options(str(tmp_path / "on"), str(warmed), max_tokens=1, dtype="float32", device="cpu"))
    card, before = (json.loads((f / CARD).read_text(encoding="utf-8")) for f in (tmp_path / "on", warmed))
    assert card["base"] == "tiny"
    assert card["before"]["sha256"] == before["sha256"]
    tensors, kept = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "on", warmed))
    assert tensors.keys() == kept.keys()
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)
    assert max(float(tensor.abs().max()) for name, tensor in kept.items() if "lora_B" in name) > 0


@pytest.mark.model
def test_the_packaged_one_is_small_and_loads() -> None:
    folder = WARMED[THINK_LM]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12 * 2**20
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    assert card["base"] == PACKAGED_LM
    model = load_backbone(THINK_LM, "cpu", "float32")
    assert model.fingerprint != load_backbone(PACKAGED_LM, "cpu", "float32").fingerprint
