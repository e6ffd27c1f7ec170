"""The bank: unit keys in, exact edits, the same bank back from disk, and errors that name the memory."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from methods.base import MethodError
from methods.recall.bank import FORMAT, MemoryBank

WIDTH = 16
CPU = torch.device("cpu")


def bank_of(count: int = 3, num_vectors: int = 1) -> MemoryBank:
    torch.manual_seed(0)
    bank = MemoryBank(torch.randn(WIDTH), 2.5, "abc")
    names = [f"m{i}" for i in range(count)]
    texts = [f"text {i}" for i in range(count)]
    bank.write(names, texts, torch.randn(count, WIDTH) * 9, list(torch.randn(count, num_vectors, WIDTH)))
    return bank


def same(one: MemoryBank, other: MemoryBank) -> bool:
    return (
        one.ids == other.ids
        and one.texts == other.texts
        and torch.equal(one.keys_MD, other.keys_MD)
        and len(one.fed) == len(other.fed)
        and all(torch.equal(a, b) for a, b in zip(one.fed, other.fed, strict=True))
        and [one.index(memory_id) for memory_id in one.ids] == list(range(len(one)))
    )


def test_vectors_are_unit_at_write() -> None:
    """Keys are; what is fed stays as it was given."""
    bank, fed = bank_of(), torch.randn(2, WIDTH) * 7
    torch.testing.assert_close(bank.keys_MD.norm(dim=-1), torch.ones(3))
    bank.write(["m9"], ["text"], torch.randn(1, WIDTH) * 9, [fed])
    torch.testing.assert_close(bank.keys_MD.norm(dim=-1), torch.ones(4))
    assert torch.equal(bank.memory_embeddings(3), fed)
    fed[0] = 0.0  # the bank has its own
    assert bool(bank.memory_embeddings(3)[0].any())


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


def test_a_class_whose_members_lie_apart_gets_what_is_nearer_to_its_mean() -> None:
    """The memory head ranks by the distance to the mean, not by the angle."""
    torch.manual_seed(3)
    bank = MemoryBank(torch.zeros(WIDTH), 1.0, "")
    groups = [
        F.normalize(torch.randn(9, WIDTH) + 4 * near * torch.randn(WIDTH), dim=-1) for near in (0.0, 1.0, 1.0)
    ]
    means_3D = torch.stack([group_QD.mean(dim=0) for group_QD in groups])
    bank.write(["apart", "a", "b"], ["x", "y", "z"], means_3D, list(torch.ones(3, 1, WIDTH)))
    assert torch.equal(bank.keys_MD, means_3D)
    states = torch.cat(groups)
    expected = 1.0 - torch.cdist(states, means_3D).square() / 2
    torch.testing.assert_close(bank.memory_head(states * 7), expected, atol=1e-5, rtol=0)
    own = [bank.memory_head(groups[0]), groups[0] @ F.normalize(means_3D, dim=-1).T]
    assert int(own[0].argmax(dim=-1).eq(0).sum()) >= int(own[1].argmax(dim=-1).eq(0).sum())
    assert not torch.equal(own[0].argsort(dim=-1), own[1].argsort(dim=-1))


def test_writing_a_known_id_replaces_that_memory_only() -> None:
    bank, before = bank_of(), bank_of()
    new = torch.randn(2, WIDTH)
    bank.write(["m1", "m9"], ["new", "more"], new, list(new[:, None]))
    assert bank.ids == ["m0", "m1", "m2", "m9"]
    assert bank.texts == ["text 0", "new", "text 2", "more"]
    for row, vector in ((1, new[0]), (3, new[1])):
        torch.testing.assert_close(bank.keys_MD[row], F.normalize(vector, dim=0))
        assert torch.equal(bank.memory_embeddings(row), vector[None])
    for row in (0, 2):
        assert torch.equal(bank.keys_MD[row], before.keys_MD[row])
        assert torch.equal(bank.fed[row], before.fed[row])


def test_forgetting_is_exact() -> None:
    bank, before = bank_of(), bank_of()
    bank.forget(["m1"])
    assert (bank.ids, bank.texts) == (["m0", "m2"], ["text 0", "text 2"])
    assert "m1" not in bank and bank.index("m2") == 1
    assert torch.equal(bank.keys_MD, before.keys_MD[[0, 2]])
    assert torch.equal(bank.values_MPD, before.values_MPD[[0, 2]])
    bank.write(["m1"], ["text 1"], before.keys_MD[[1]], [before.fed[1]])
    assert bank.ids == ["m0", "m2", "m1"]
    bank.forget(["m0", "m1", "m2"])
    assert len(bank) == 0
    assert bank.num_bytes == 0
    assert bank.memory_head(torch.randn(2, WIDTH)).shape == (2, 0)


def test_many_memories_written_in_pieces_are_those_of_one_write() -> None:
    """20,000 of them, some again with another text: those keep their rows, the others their order."""
    count, width = 20_000, 8
    generator = torch.Generator().manual_seed(0)
    ids, texts = [f"m{n}" for n in range(count)], [f"text {n}" for n in range(count)]
    keys_MD = F.normalize(torch.randn(count, width, generator=generator), dim=-1)
    fed = list(torch.randn(count, 2, width, generator=generator))

    def empty() -> MemoryBank:
        return MemoryBank(torch.zeros(width), 1.0, "")

    whole, pieces = empty(), empty()
    whole.write(ids, texts, keys_MD, fed)
    for start in range(0, count, 1024):
        part = slice(start, start + 1024)
        pieces.write(ids[part], texts[part], keys_MD[part], fed[part])
    assert same(pieces, whole)

    again = random.Random(0).sample(range(count), 500)
    new_keys, new_fed = torch.randn(500, width, generator=generator), list(torch.randn(500, 3, width))
    whole.write([ids[n] for n in again], [f"new {n}" for n in again], new_keys, new_fed)
    assert whole.ids == ids
    assert len(whole) == count
    kept = sorted(set(range(count)) - set(again))
    assert torch.equal(whole.keys_MD[kept], pieces.keys_MD[kept])
    torch.testing.assert_close(whole.keys_MD[again], F.normalize(new_keys, dim=-1))
    for place, row in enumerate(again):
        assert whole.texts[row] == f"new {row}"
        assert torch.equal(whole.fed[row], new_fed[place])
    assert all(whole.texts[row] == texts[row] and torch.equal(whole.fed[row], fed[row]) for row in kept[:500])
    assert [whole.index(ids[n]) for n in again] == again


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
        bank.write(ids, texts, vectors, list(vectors[:, None]))
    assert said in str(error.value)
    if width == WIDTH and len(ids) == 1:  # a good memory before the bad one is not written either
        with pytest.raises(MethodError):
            both = torch.cat([good, vectors])
            bank.write(["good", *ids], ["a", *texts], both, list(both[:, None]))
    assert same(bank, bank_of())


@pytest.mark.parametrize("wide", ["key", "fed"])
def test_the_width_that_does_not_fit_is_named_whichever_it_is(wide: str) -> None:
    bank, vector = bank_of(), torch.randn(1, WIDTH)
    key, fed = (torch.randn(1, WIDTH + 1) if name == wide else vector for name in ("key", "fed"))
    with pytest.raises(MethodError, match=f"'new' has width {WIDTH + 1}, this model needs {WIDTH}"):
        bank.write(["new"], ["a"], key, [fed])
    assert same(bank, bank_of())


def test_an_unknown_id_is_named_and_nothing_is_forgotten() -> None:
    bank = bank_of()
    with pytest.raises(MethodError, match="'m7'"):
        bank.forget(["m0", "m7"])
    assert same(bank, bank_of())


@pytest.mark.parametrize("num_vectors", [0, 1, 3])
def test_bytes_are_those_of_keys_of_what_is_fed_and_of_texts(num_vectors: int) -> None:
    bank = bank_of(num_vectors=num_vectors)
    assert bank.num_bytes == (3 * (1 + num_vectors) * WIDTH * 4) + len("text 0text 1text 2")
    key = torch.ones(1, WIDTH)
    bank.write(["zh"], ["年假"], key, [key[:0]])
    assert bank.num_bytes == (3 * (1 + num_vectors) + 1) * WIDTH * 4 + len("text 0text 1text 2") + 6  # of UTF-8


@pytest.mark.parametrize("num_vectors", [0, 1, 3])
def test_from_disk_comes_the_same_bank(tmp_path: Path, num_vectors: int) -> None:
    bank = bank_of(num_vectors=num_vectors)
    bank.save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank", "abc", CPU)
    assert same(loaded, bank)
    assert (loaded.gain, loaded.num_vectors) == (bank.gain, num_vectors)
    raw = torch.randn(3, WIDTH)
    assert torch.equal(loaded.normalise(raw), bank.normalise(raw))
    assert torch.equal(loaded.memory_head(raw), bank.memory_head(raw))
    loaded.write(["more"], ["text"], raw[:1], [raw])
    assert len(loaded) == 4


@pytest.mark.parametrize("found", [None, FORMAT - 1, FORMAT + 1])
def test_a_bank_of_another_format_is_refused(tmp_path: Path, found: int | None) -> None:
    """The first format did not say its number."""
    bank_of().save(tmp_path)
    meta = json.loads((tmp_path / "bank.json").read_text(encoding="utf-8"))
    assert meta.pop("format") == FORMAT
    meta |= {"format": found} if found else {}
    (tmp_path / "bank.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(MethodError, match=f"has format {found or 1}, .* reads format {FORMAT}; use the version"):
        MemoryBank.load(tmp_path, "abc", CPU)


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


def test_nothing_to_write_is_one_sentence() -> None:
    with pytest.raises(MethodError, match="no memory to write; give at least one"):
        bank_of().write([], [], torch.empty(0, WIDTH), [])


def test_a_memory_may_have_several_vectors(tmp_path: Path) -> None:
    """They are fed as they are, count as bytes, and go and come with their memory."""
    bank, before = bank_of(), bank_of()
    fed = torch.randn(4, WIDTH) * 20
    bank.write(["m1", "long"], ["text 1", "text"], torch.randn(2, WIDTH), [fed[:1], fed])
    assert torch.equal(bank.memory_embeddings(1), fed[:1])
    assert torch.equal(bank.memory_embeddings(3), fed)
    assert torch.equal(bank.memory_embeddings(2), before.memory_embeddings(2))
    assert bank.num_bytes == (4 + 3 + 4) * WIDTH * 4 + len("text 0text 1text 2text")
    bank.save(tmp_path / "bank")
    assert same(MemoryBank.load(tmp_path / "bank", "abc", CPU), bank)
    bank.write(["m1"], ["text 1"], before.keys_MD[[1]], [before.fed[1]])
    bank.forget(["long"])
    torch.testing.assert_close(bank.keys_MD, before.keys_MD)  # m1's was normalised once more
    assert torch.equal(torch.stack(bank.fed), torch.stack(before.fed))


def test_a_bad_one_of_several_vectors_is_refused() -> None:
    bank, fed = bank_of(), torch.randn(2, WIDTH)
    fed[1, 0] = math.nan
    with pytest.raises(MethodError, match="'n' is zero or holds NaN"):
        bank.write(["n"], ["a"], torch.randn(1, WIDTH), [fed])
    assert same(bank, bank_of())


@pytest.mark.parametrize("vectors", [0, 1, 3])
def test_values_taken_from_training_are_what_is_fed(tmp_path: Path, vectors: int) -> None:
    """None, one vector each or several, for every memory, and again from disk."""
    bank = bank_of()
    unit_MPD = F.normalize(torch.randn(len(bank), vectors, WIDTH), dim=-1)
    bank.take_values(unit_MPD)
    assert bank.num_vectors == vectors
    bank.save(tmp_path)
    for one in (bank, MemoryBank.load(tmp_path, "abc", CPU)):
        torch.testing.assert_close(one.values_MPD, unit_MPD)
        torch.testing.assert_close(one.memory_embeddings(2), unit_MPD[2] * bank.gain)
