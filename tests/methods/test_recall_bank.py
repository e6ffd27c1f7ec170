"""The bank: unit vectors in, exact edits, the same bank back from disk, and errors that name the memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.bank import MemoryBank
from methods.recall.embed import (
    _batch_extract_embeddings,
    check_lengths,
    memory_limit,
    too_long_to_recite,
)
from tasks.base import Memory

WIDTH = 16
CPU = torch.device("cpu")


def bank_of(count: int = 3) -> MemoryBank:
    torch.manual_seed(0)
    bank = MemoryBank(torch.randn(WIDTH), 2.5, "abc")
    names = [f"m{i}" for i in range(count)]
    bank.write(
        names, [f"text {i}" for i in range(count)], torch.randn(count, WIDTH) * 9, torch.randn(count, WIDTH)
    )
    return bank


def same(one: MemoryBank, other: MemoryBank) -> bool:
    return (
        one.ids == other.ids
        and one.texts == other.texts
        and torch.equal(one.keys_MD, other.keys_MD)
        and torch.equal(one.values_MD, other.values_MD)
    )


def test_vectors_are_unit_at_write() -> None:
    bank = bank_of()
    for vectors in (bank.keys_MD, bank.values_MD):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(bank.embeddings_MD.norm(dim=-1), torch.full((3,), 2.5))
    assert torch.equal(bank.memory_embedding(1), bank.embeddings_MD[1])


def test_the_memory_head_is_the_cosine() -> None:
    bank = bank_of(5)
    queries = torch.randn(4, WIDTH) * 7
    scores = bank.memory_head(queries)
    assert scores.shape == (4, 5)
    for b in range(4):
        for m in range(5):
            dot = float(torch.dot(queries[b], bank.keys_MD[m]))
            assert float(scores[b, m]) == pytest.approx(dot / float(queries[b].norm()), abs=1e-6)
    torch.testing.assert_close(bank.memory_head(bank.keys_MD * 5).diagonal(), torch.ones(5))


def test_writing_a_known_id_replaces_that_memory_only() -> None:
    bank, before = bank_of(), bank_of()
    new = torch.randn(2, WIDTH)
    bank.write(["m1", "m9"], ["new", "more"], new, new)
    assert bank.ids == ["m0", "m1", "m2", "m9"]
    assert bank.texts == ["text 0", "new", "text 2", "more"]
    torch.testing.assert_close(bank.keys_MD[1], F.normalize(new[0], dim=0))
    torch.testing.assert_close(bank.values_MD[3], F.normalize(new[1], dim=0))
    for row in (0, 2):
        assert torch.equal(bank.keys_MD[row], before.keys_MD[row])
        assert torch.equal(bank.values_MD[row], before.values_MD[row])


def test_forgetting_is_exact() -> None:
    bank, before = bank_of(), bank_of()
    bank.forget(["m1"])
    assert bank.ids == ["m0", "m2"]
    assert torch.equal(bank.keys_MD, before.keys_MD[[0, 2]])
    assert torch.equal(bank.values_MD, before.values_MD[[0, 2]])
    bank.write(["m1"], ["text 1"], before.keys_MD[[1]], before.values_MD[[1]])
    assert bank.ids == ["m0", "m2", "m1"]
    bank.forget(["m0", "m1", "m2"])
    assert len(bank) == 0
    assert bank.num_bytes == 0


@pytest.mark.parametrize(
    ("ids", "texts", "width", "fill", "said"),
    [
        (["new", "new"], ["a", "b"], WIDTH, 1.0, "'new'"),
        (["new"], ["  \n"], WIDTH, 1.0, "'new' has no text"),
        (["new"], ["a"], WIDTH + 1, 1.0, f"width {WIDTH + 1}, this model needs {WIDTH}"),
        (["new"], ["a"], WIDTH, math.nan, "'new' is zero or holds NaN"),
        (["new"], ["a"], WIDTH, math.inf, "'new' is zero or holds NaN or infinity"),
        (["new"], ["a"], WIDTH, 0.0, "'new' is zero"),
    ],
)
def test_what_cannot_be_written_is_named_and_nothing_is_written(
    ids: list[str], texts: list[str], width: int, fill: float, said: str
) -> None:
    bank = bank_of()
    good = torch.randn(1, WIDTH)
    vectors = torch.full((len(ids), width), fill)
    with pytest.raises(MethodError, match="memory bank") as error:
        bank.write(ids, texts, vectors, vectors)
    assert said in str(error.value)
    if width == WIDTH and len(ids) == 1:  # a good memory before the bad one is not written either
        with pytest.raises(MethodError):
            bank.write(["good", *ids], ["a", *texts], torch.cat([good, vectors]), torch.cat([good, vectors]))
    assert same(bank, bank_of())


def test_an_unknown_id_is_named_and_nothing_is_forgotten() -> None:
    bank = bank_of()
    with pytest.raises(MethodError, match="'m7'"):
        bank.forget(["m0", "m7"])
    assert same(bank, bank_of())


def test_bytes_count_tied_vectors_once() -> None:
    bank = bank_of()
    assert bank.num_bytes == 2 * 3 * WIDTH * 4
    bank.values_MD = bank.keys_MD.clone()
    assert bank.num_bytes == 3 * WIDTH * 4


def test_from_disk_comes_the_same_bank(tmp_path: Path) -> None:
    bank = bank_of()
    bank.save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank", "abc", CPU)
    assert same(loaded, bank)
    assert loaded.gain == bank.gain
    raw = torch.randn(3, WIDTH)
    assert torch.equal(loaded.normalise(raw), bank.normalise(raw))
    assert torch.equal(loaded.memory_head(raw), bank.memory_head(raw))


def test_another_models_bank_is_refused(tmp_path: Path) -> None:
    bank_of().save(tmp_path / "bank")
    with pytest.raises(MethodError, match="another model") as error:
        MemoryBank.load(tmp_path / "bank", "xyz", CPU)
    assert "abc" in str(error.value)
    assert "xyz" in str(error.value)


# Centring.


def test_centring_spreads_what_lies_close() -> None:
    spread = torch.linspace(0.1, 5.0, WIDTH)  # states as they come: one large common offset
    raw = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(1)) * spread + 20.0

    def mean_cosine(bank: MemoryBank) -> float:
        units = bank.normalise(raw)
        return float((units @ units.T).mean())

    plain = MemoryBank(torch.zeros(WIDTH), 1.0, "")
    centred = MemoryBank(raw.mean(dim=0), 1.0, "")
    assert mean_cosine(plain) > 0.9
    assert abs(mean_cosine(centred)) < 0.05
    torch.testing.assert_close(plain.normalise(raw), F.normalize(raw, dim=-1))


# Text -> raw vector.


def test_a_vector_is_the_last_tokens_state_whatever_the_batch(lively: Backbone) -> None:
    texts = ["a", "A somewhat longer clause.", "Meals cost 31 euros.", "<recall>"]
    alone = torch.cat([_batch_extract_embeddings(lively, [text]) for text in texts])
    for size in (2, 3, 32):
        together = _batch_extract_embeddings(lively, texts, batch_size=size)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([lively.tokenizer(texts[1]).input_ids])
    with torch.no_grad():
        state = lively.model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(alone[1], state)


def test_a_suffix_is_read_too(lively: Backbone) -> None:
    with_suffix = _batch_extract_embeddings(lively, ["a clause"], suffix=" In short:")
    torch.testing.assert_close(with_suffix, _batch_extract_embeddings(lively, ["a clause In short:"]))


def test_a_text_over_the_limit_is_named(lively: Backbone) -> None:
    with pytest.raises(MethodError, match=r"'Long clause.* 22 tokens, the limit is 21"):
        _batch_extract_embeddings(lively, ["short", "Long clause, too long."], max_tokens=21)


def test_a_text_may_be_as_long_as_the_window_unless_a_limit_is_named(lively: Backbone) -> None:
    with pytest.raises(MethodError, match=r"2049 tokens, the limit is 2048"):
        _batch_extract_embeddings(lively, ["x" * 2049])
    assert _batch_extract_embeddings(lively, ["x" * 2049], max_tokens=2049).shape == (1, lively.hidden_size)


def test_a_memory_leaves_room_for_question_and_answer(lively: Backbone) -> None:
    assert memory_limit(lively) == lively.context_length - 512
    fits, over = Memory("fits", "x" * 1536), Memory("over", "x" * 1530, "A title")
    check_lengths(lively, [fits])
    with pytest.raises(MethodError, match=r"memory 'over' has 1539 tokens, .* leaves 1536"):
        check_lengths(lively, [fits, over])


def test_memories_that_fill_an_answer_are_counted_and_the_longest_is_named(lively: Backbone) -> None:
    memories = [Memory("short", "x" * 94), Memory("long", "x" * 95), Memory("longest", "x" * 120)]
    assert too_long_to_recite(lively, memories, 126) == ""
    assert "'longest' takes 132" in too_long_to_recite(lively, memories, 126, num_pads=8)
    said = too_long_to_recite(lively, memories, 100)  # four tokens stand around a recited text, and its pad
    assert "2 of 3 memories" in said
    assert "100 tokens and 'longest' takes 125" in said


def test_nothing_to_write_is_one_sentence() -> None:
    with pytest.raises(MethodError, match="no memory to write; give at least one"):
        bank_of().write([], [], torch.empty(0, WIDTH), torch.empty(0, WIDTH))


def test_a_memory_may_have_several_vectors(tmp_path: Path) -> None:
    """They are fed as they are, count as bytes, and go and come with their memory."""
    bank, before = bank_of(), bank_of()
    fed = torch.randn(4, WIDTH) * 20
    bank.write(["m1", "long"], ["text 1", "text"], torch.randn(2, WIDTH), [fed[:1], fed])
    assert torch.equal(bank.memory_embeddings(1), fed[:1])
    assert torch.equal(bank.memory_embeddings(3), fed)
    assert torch.equal(bank.memory_embedding(3), fed[0])
    assert torch.equal(bank.memory_embeddings(2), before.memory_embedding(2)[None])
    torch.testing.assert_close(bank.values_MD[3], F.normalize(fed[0], dim=0))
    assert bank.num_bytes == (2 * 4 + 3) * WIDTH * 4
    bank.save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank", "abc", CPU)
    assert [loaded.memory_embeddings(i).tolist() for i in range(4)] == [
        bank.memory_embeddings(i).tolist() for i in range(4)
    ]
    bank.write(["m1"], ["text 1"], before.keys_MD[[1]], before.values_MD[[1]])
    bank.forget(["long"])
    assert same(bank, before)
    assert not bank.several


def test_a_bad_one_of_several_vectors_is_refused() -> None:
    bank, fed = bank_of(), torch.randn(2, WIDTH)
    fed[1, 0] = math.nan
    with pytest.raises(MethodError, match="'n' is zero or holds NaN"):
        bank.write(["n"], ["a"], torch.randn(1, WIDTH), [fed])
    assert same(bank, bank_of())


def test_values_taken_from_training_are_what_is_fed(tmp_path: Path) -> None:
    """One vector each or several, for every memory, and again from disk."""
    for vectors in (1, 3):
        bank = bank_of()
        unit_MPD = F.normalize(torch.randn(len(bank), vectors, WIDTH), dim=-1)
        bank.take_values(unit_MPD)
        assert bank.num_vectors == vectors
        bank.save(tmp_path / str(vectors))
        for one in (bank, MemoryBank.load(tmp_path / str(vectors), "abc", CPU)):
            torch.testing.assert_close(one.values_MPD, unit_MPD)
            torch.testing.assert_close(one.memory_embeddings(2), unit_MPD[2] * bank.gain)
