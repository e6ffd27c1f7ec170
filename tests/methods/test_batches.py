"""Samples into batches: one row without loss, grouped by length, shared among processes."""

from __future__ import annotations

import random

import pytest
import torch
from test_train import batches_of, losses_of, term

from methods.backbone import Backbone
from methods.batches import COARSE, FINE, collate, counts, length_grouped, padding_multiple, share_of
from methods.samples import IGNORE, supervised
from methods.train import MemoryLM

CPU = torch.device("cpu")


def test_batches_hold_every_sample_once() -> None:
    samples = [supervised([1], [2] * n, "sft_only") for n in range(1, 24)]
    batches = length_grouped(samples, 128, random.Random(0))
    assert sorted(len(s) for batch in batches for s in batch) == [len(s) for s in samples]
    assert max(map(len, batches)) == 4  # 128 tokens hold four samples padded to 32
    assert batches != length_grouped(samples, 128, random.Random(1))


def test_no_batch_is_over_its_tokens_unless_it_is_one_sample() -> None:
    rng = random.Random(2)
    samples = [supervised([1], [2] * rng.randint(1, 300), "sft_only") for _ in range(200)]
    for batch in length_grouped(samples, 256, rng):
        assert collate(batch, 0, CPU).places_BT.numel() <= 256 or len(batch) == 1


def test_a_row_holds_every_sample(lively: Backbone) -> None:
    """Each at its places, with its positions; what all begin with stands there once."""
    samples = [sample for batch in batches_of(lively) for sample in batch]
    batch = collate(samples, 2, CPU)
    learnt = dict(zip(batch.predicting_L.tolist(), batch.labels_L.tolist(), strict=True))
    for sample, places_T in zip(samples, batch.places_BT, strict=True):
        own_T = places_T[: len(sample)]
        assert batch.input_ids_N[own_T].tolist() == list(sample.input_ids)
        assert batch.positions_N[own_T].tolist() == list(range(len(sample)))
        for n, label in enumerate(sample.labels):
            if label != IGNORE:
                assert learnt[int(own_T[n - 1])] == label
    assert batch.attention_mask_BT.sum(dim=1).tolist() == list(map(len, samples))
    assert sum(map(len, samples)) > len(set(batch.places_BT.flatten().tolist()))
    assert batch.memory_index_Q.tolist() == batch.fed_index_I.tolist() == [1, 4]


def test_how_far_sizes_are_filled_up_changes_no_loss(lively: Backbone) -> None:
    """To few sizes where kernels are compiled for each, else to as little as may be."""
    assert padding_multiple(torch.bfloat16, CPU) == COARSE
    assert padding_multiple(torch.float32, CPU) == padding_multiple(torch.bfloat16, torch.device("cuda")) == FINE
    samples, memory = [s for batch in batches_of(lively) for s in batch], term(lively)
    found = []
    for multiple in (FINE, COARSE):
        batch = collate(samples, lively.tokenizer.pad_token_id, CPU, multiple)
        assert len(batch.input_ids_N) % multiple == len(batch.labels_L) % multiple == 0
        with torch.no_grad():
            found.append({name: float(loss) for name, loss in MemoryLM(lively.model, memory)(batch).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_of_a_batch_average_to_the_batch(lively: Backbone, world: int) -> None:
    """However many processes share it, one that gets no sample among them."""
    samples, memory = [s for batch in batches_of(lively) for s in batch], term(lively)
    whole = losses_of(lively, samples, memory)
    parts: dict[str, list[float]] = {name: [] for name in whole}
    with torch.no_grad():
        for rank in range(world):
            share = share_of(samples, rank, world)
            batch = collate(share, lively.tokenizer.pad_token_id, CPU, 8, whole=counts(samples, world))
            losses = MemoryLM(lively.model, memory)(batch)
            for name in whole:
                parts[name].append(float(losses.get(name, 0.0)))
    assert {name: sum(found) / world for name, found in parts.items()} == pytest.approx(whole, rel=1e-5)


def test_a_process_without_a_sample_still_has_a_gradient(lively: Backbone) -> None:
    """Of zero: the others wait for it."""
    memory, sample = term(lively), batches_of(lively)[1][0]
    batch = collate(share_of([sample], 1, 2), lively.tokenizer.pad_token_id, CPU, 8, whole=counts([sample], 2))
    lively.model.get_input_embeddings().weight.requires_grad_(True)
    (loss,) = MemoryLM(lively.model, memory)(batch).values()
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(lively.model.get_input_embeddings().weight.grad.abs().max()) == 0.0
