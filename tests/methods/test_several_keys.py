"""Several keys a memory: the best one counts, they come and go with it, and a single key is as it ever was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from methods.recall.stage1 import train_recall_token
from model_script import random_bank
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Context, MethodError
from methods.chat import encode_pieces, encode_prompt, supervised
from methods.recall.bank import FORMAT, NULL_ID, MemoryBank, best_cosines
from methods.recall.embed import _batch_extract_embeddings, key_parts
from methods.recall.method import RecallConfig, RecallMethod
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm, no_progress
from tasks.base import Memory, Message, TaskData

WIDTH = 16
CPU = torch.device("cpu")
NEW = Memory("new", "Skates are returned to desk eleven. They must be dry by noon.", "Skates, Oulu")


def bank_of(count: int = 4, num_keys: int = 3, seed: int = 0) -> MemoryBank:
    generator = torch.Generator().manual_seed(seed)
    bank = MemoryBank(torch.randn(WIDTH, generator=generator), 2.5, "abc", num_keys)
    keys = torch.randn(count, num_keys, WIDTH, generator=generator)
    names = [f"m{i}" for i in range(count)]
    bank.write(names, [f"text {i}" for i in range(count)], keys, torch.randn(count, WIDTH, generator=generator))
    return bank


def queries(count: int = 6) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7))


# The memory head.


def test_a_memory_stands_with_its_best_key() -> None:
    bank = bank_of()
    scores = bank.memory_head(queries())
    assert scores.shape == (6, 4)
    for query, row in zip(queries(), scores, strict=True):
        best = [max(float(F.cosine_similarity(query, key, dim=0)) for key in keys) for keys in bank.keys_MKD]
        assert row.tolist() == pytest.approx(best, abs=1e-6)
        assert int(row.argmax()) == best.index(max(best))
    for memory, place in itertools.product(range(4), range(3)):  # each key finds its memory
        assert int(bank.memory_head(bank.keys_MKD[memory, place][None] * 9).argmax()) == memory


def test_one_key_is_the_plain_matmul_to_the_bit() -> None:
    bank = bank_of(num_keys=1)
    assert torch.equal(bank.memory_head(queries()), F.normalize(queries(), dim=-1) @ bank.keys_MD.T)
    assert bank.memory_head(queries()).shape == (6, 4)
    empty = MemoryBank(torch.zeros(WIDTH), 1.0, "", 3)
    assert empty.memory_head(queries()).shape == (6, 0)


def test_a_key_that_stands_twice_changes_nothing() -> None:
    once, twice = bank_of(num_keys=2), MemoryBank(torch.zeros(WIDTH), 1.0, "", 3)
    twice.write(once.ids, once.texts, once.keys_MKD[:, [0, 1, 0]], once.values_MD)
    torch.testing.assert_close(twice.memory_head(queries()), once.memory_head(queries()))


# Training.


def plain_loss(query: Tensor, keys: Tensor, index: Tensor, tau: float) -> Tensor:
    return F.cross_entropy(F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T / tau, index)


def test_with_one_key_loss_and_gradients_are_the_plain_ones_to_the_bit() -> None:
    bank, index = bank_of(num_keys=1), torch.tensor([0, 3, 2, 1, 1, 0])
    term = MemoryTerm(bank.keys_MKD, bank.values_MD, 1.0, 0.05, train_keys=True)
    query = queries().requires_grad_()
    loss = term.retrieval_loss(query, index)
    loss.backward()
    other, keys = queries().requires_grad_(), bank.keys_MD.clone().requires_grad_()
    expected = plain_loss(other, keys, index, 0.05)
    expected.backward()
    assert torch.equal(loss, expected)
    assert query.grad is not None and other.grad is not None and keys.grad is not None
    assert torch.equal(query.grad, other.grad)
    assert term.keys_MKD.grad is not None
    assert torch.equal(term.keys_MKD.grad[:, 0], keys.grad)


def test_the_loss_is_over_memories_and_moves_the_keys_that_were_found() -> None:
    bank, index = bank_of(), torch.tensor([2])
    term = MemoryTerm(bank.keys_MKD, bank.values_MD, 1.0, 0.05, train_keys=True)
    query = queries(1)
    loss = term.retrieval_loss(query, index)
    best = best_cosines(F.normalize(query, dim=-1), bank.keys_MKD)
    torch.testing.assert_close(loss, F.cross_entropy(best / 0.05, index))
    loss.backward()
    assert term.keys_MKD.grad is not None
    moved = term.keys_MKD.grad.norm(dim=-1) > 1e-6
    found = (F.normalize(query, dim=-1) @ bank.keys_MKD.flatten(0, 1).T).view(4, 3).argmax(dim=-1)
    assert moved.sum(dim=-1).max() == 1
    assert bool(moved[2, found[2]])
    assert all(not moved[memory, place] or place == found[memory] for memory in range(4) for place in range(3))


def test_twins_are_no_negatives_with_any_key() -> None:
    bank = bank_of()
    twins = torch.zeros(4, 4, dtype=torch.bool)
    twins[0, 2] = twins[2, 0] = True
    index = torch.zeros(6, dtype=torch.long)
    masked = MemoryTerm(bank.keys_MKD, bank.values_MD, 1.0, 0.05, twins_MM=twins).retrieval_loss(queries(), index)
    kept = [0, 1, 3]
    without = MemoryTerm(bank.keys_MKD[kept], bank.values_MD[kept], 1.0, 0.05).retrieval_loss(queries(), index)
    torch.testing.assert_close(masked, without)


def test_the_bank_gets_the_keys_that_were_trained(lively: Backbone) -> None:
    bank, before = random_bank(lively, num_keys=3), random_bank(lively, num_keys=3)
    ids = lively.ids
    tail = encode_pieces(lively.tokenizer, [ids.think, "\n", ids.recall])
    samples = [
        supervised(
            encode_prompt(lively, [Message("user", question)], system="S"),
            tail,
            "query",
            recall=len(tail) - 1,
            memory_index=index,
            target_loss_from=len(tail),
        )
        for question, index in (("Where?", 1), ("When?", 4))
    ]
    config = LoraTrainConfig(max_tokens=1500, learning_rate=1e-2, batch_tokens=256)
    train_recall_token(lively, bank, itertools.repeat([samples]), config, no_progress, train_keys=True)
    assert bank.keys_MKD.shape == before.keys_MKD.shape
    torch.testing.assert_close(bank.keys_MKD.norm(dim=-1), torch.ones(7, 3))
    assert not bank.keys_MKD.requires_grad
    moved = (bank.keys_MKD - before.keys_MKD).norm(dim=-1) > 1e-4
    assert bool(moved[1].any()) and bool(moved[4].any())


# Edits.


def test_a_memory_is_replaced_and_forgotten_with_all_its_keys() -> None:
    bank, before = bank_of(), bank_of()
    new_keys = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(3))
    bank.write(["m1"], ["new"], new_keys, torch.ones(1, WIDTH))
    torch.testing.assert_close(bank.keys_MKD[1], F.normalize(new_keys[0], dim=-1))
    kept = [0, 2, 3]
    assert torch.equal(bank.keys_MKD[kept], before.keys_MKD[kept])
    bank.forget(["m1"])
    assert torch.equal(bank.keys_MKD, before.keys_MKD[kept])
    assert bank.memory_head(queries()).shape == (6, 3)
    torch.testing.assert_close(bank.memory_head(queries()), before.memory_head(queries())[:, kept])
    bank.forget(["m0", "m2", "m3"])
    assert (len(bank), bank.num_keys, bank.num_bytes) == (0, 3, 0)


def test_one_key_for_a_memory_stands_in_all_places() -> None:
    bank = bank_of()
    key = torch.ones(1, WIDTH)
    bank.write(["one"], ["text"], key, key)
    torch.testing.assert_close(bank.keys_MKD[-1], F.normalize(key, dim=-1).expand(3, -1))


def test_a_bad_key_in_any_place_is_named_and_nothing_is_written() -> None:
    bank = bank_of()
    keys = torch.randn(1, 3, WIDTH)
    keys[0, 2, 5] = float("nan")
    with pytest.raises(MethodError, match="'n' is zero or holds NaN"):
        bank.write(["n"], ["text"], keys, torch.ones(1, WIDTH))
    with pytest.raises(MethodError, match="2 keys each, this bank has 3"):
        bank.write(["n"], ["text"], keys[:, :2], torch.ones(1, WIDTH))
    assert torch.equal(bank.keys_MKD, bank_of().keys_MKD)
    assert bank.ids == bank_of().ids


def test_bytes_are_those_of_all_keys_and_the_values() -> None:
    assert bank_of(num_keys=3).num_bytes == 4 * (3 + 1) * WIDTH * 4
    assert bank_of(num_keys=1).num_bytes == 4 * (1 + 1) * WIDTH * 4


# On disk.


@pytest.mark.parametrize("num_keys", [1, 3])
def test_from_disk_comes_the_same_bank(tmp_path: Path, num_keys: int) -> None:
    bank = bank_of(num_keys=num_keys)
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path, "abc", CPU)
    assert (loaded.ids, loaded.texts, loaded.num_keys) == (bank.ids, bank.texts, num_keys)
    assert torch.equal(loaded.keys_MKD, bank.keys_MKD)
    assert torch.equal(loaded.memory_head(queries()), bank.memory_head(queries()))
    loaded.write(["more"], ["text"], torch.ones(1, num_keys, WIDTH), torch.ones(1, WIDTH))
    assert len(loaded) == 5


def test_one_key_is_saved_in_the_first_format_and_that_is_read(tmp_path: Path) -> None:
    bank = bank_of(num_keys=1)
    bank.save(tmp_path)
    assert load_file(tmp_path / "bank.safetensors")["keys"].shape == (4, WIDTH)
    meta = json.loads((tmp_path / "bank.json").read_text(encoding="utf-8"))
    assert sorted(meta) == ["fingerprint", "gain", "ids", "texts"]
    tensors = {"keys": bank.keys_MD.clone(), "values": bank.values_MD, "center": bank.center_D}
    save_file(tensors, tmp_path / "bank.safetensors")
    assert torch.equal(MemoryBank.load(tmp_path, "abc", CPU).keys_MKD, bank.keys_MKD)


def test_a_bank_of_a_later_format_is_refused(tmp_path: Path) -> None:
    bank_of().save(tmp_path)
    meta = json.loads((tmp_path / "bank.json").read_text(encoding="utf-8"))
    assert meta["format"] == FORMAT
    (tmp_path / "bank.json").write_text(json.dumps({**meta, "format": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(MethodError, match=f"has format {FORMAT + 1}, .* no later one than {FORMAT}; update"):
        MemoryBank.load(tmp_path, "abc", CPU)


# What the keys are of.


def texts_of(memory: Memory, num_keys: int) -> list[str]:
    return [part.text for part in key_parts(memory, num_keys)]


def test_the_whole_text_comes_first_then_its_sentences() -> None:
    text = "Skates are returned by 14.30. Are they wet? Dry them!  Lost ones cost 3 euros."
    memory = Memory("a", text, "Skates")
    assert texts_of(memory, 1) == [text]
    sentences = ["Skates are returned by 14.30.", "Are they wet?", "Dry them!", "Lost ones cost 3 euros."]
    assert texts_of(memory, 5) == texts_of(memory, 9) == [text, *sentences]
    assert texts_of(memory, 3) == [text, " ".join(sentences[:2]), "Dry them!  Lost ones cost 3 euros."]
    assert {part.title for part in key_parts(memory, 5)} == {"Skates"}
    assert texts_of(Memory("b", "Only one sentence."), 3) == ["Only one sentence."]
    assert texts_of(Memory("c", "每年27天。提前7周提出！"), 3) == [
        "每年27天。提前7周提出！",
        "每年27天。",
        "提前7周提出！",
    ]


def test_every_part_of_a_text_is_in_one_key(regs: TaskData) -> None:
    for memory in regs.memories:
        whole, *parts = texts_of(memory, 3)
        assert whole == memory.text
        assert " ".join(parts) == memory.text


# The recipe.


def method_of(backbone: Backbone, folder: Path, keys_per_memory: int = 3) -> RecallMethod:
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=2500), folder=folder)
    return RecallMethod(setup, RecallConfig(keys_per_memory=keys_per_memory, write=WriteConfig(max_steps=3)))


def test_keys_start_at_their_parts_vectors_and_values_as_with_one_key(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    method, plain = method_of(pristine_lively, tmp_path), method_of(pristine_lively, tmp_path, 1)
    memories = [*regs.memories, Memory("short", "Only one sentence.", "T")]
    bank, one = method._make_bank(memories, []), plain._make_bank(memories, [])
    assert bank.ids == one.ids
    assert bank.keys_MKD.shape == (len(bank), 3, pristine_lively.hidden_size)
    torch.testing.assert_close(bank.center_D, one.center_D)
    torch.testing.assert_close(bank.keys_MD, one.keys_MD)
    torch.testing.assert_close(bank.values_MD, one.values_MD)
    second = f"{memories[0].title}. {texts_of(memories[0], 3)[2]}"
    raw = _batch_extract_embeddings(pristine_lively, [second], suffix=method.config.summary_prompt)
    torch.testing.assert_close(bank.keys_MKD[1, 2], bank.normalise(raw)[0], atol=1e-5, rtol=1e-5)
    for row in (0, len(bank) - 1):  # the null memory and the short one: one sentence
        assert torch.equal(bank.keys_MKD[row], bank.keys_MD[row].expand(3, -1))


@pytest.mark.slow
def test_fit_write_forget_and_load(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.recall.method.load_backbone", lambda *_args: pristine_lively)
    method = method_of(pristine_lively.clone(), tmp_path / "fit")
    report = method.fit(regs.memories, regs.sft)
    assert method.bank is not None
    assert method.bank.ids == [NULL_ID, *(m.id for m in regs.memories)]
    assert method.bank.num_keys == 3
    assert report.index_bytes == method.bank.num_bytes == 7 * (3 + 8) * pristine_lively.hidden_size * 4
    method.save(tmp_path / "saved")

    other = method_of(pristine_lively.clone(), tmp_path / "other", 1)  # the saved bank decides, not the setting
    other.load(tmp_path / "saved")
    assert other.bank is not None
    fitted = method.bank.keys_MKD.clone()
    assert torch.equal(other.bank.keys_MKD, fitted)
    other.write([NEW])
    assert other.bank.keys_MKD.shape == (8, 3, pristine_lively.hidden_size)
    assert torch.equal(other.bank.keys_MKD[:7], fitted)
    distances = torch.cdist(other.bank.keys_MKD[7], other.bank.keys_MKD[7])
    assert float(distances[~torch.eye(3, dtype=torch.bool)].min()) > 1e-3  # three different keys
    assert other.answer(Context((Message("user", "Where do skates go?"),), 4)).raw
    other.forget(["new"])
    assert torch.equal(other.bank.keys_MKD, fitted)


@pytest.mark.parametrize("keys_per_memory", [-1, 0, 2])
def test_a_number_of_keys_that_means_nothing_is_named(keys_per_memory: int) -> None:
    with pytest.raises(MethodError, match=f"keys_per_memory={keys_per_memory}: choose 1"):
        RecallConfig(keys_per_memory=keys_per_memory)
