"""Samples in one row are what they are alone: losses, gradients and counts; the tree itself, by its invariants."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods.recall.stage1 import memory_term
from methods.samples import recall_pieces
from methods.turns import Turn, as_dialogues
from model_script import random_bank

from methods.backbone import Backbone
from methods.batches import (
    MIN_SHARED,
    Row,
    can_share,
    collate,
    dialogues_grouped,
    lay_out,
    length_grouped,
    share_of,
)
from methods.chat import IGNORE, Sample, answer_pieces, encode_pieces, encode_prompt, supervised
from methods.train import LoraTrainConfig, MemoryLM, MemoryTerm, train_lora
from tasks.base import Message

CPU = torch.device("cpu")
ASKED = ["How much is it?", "Who signs the form?", "Where does the kayak stand?", "When does the office close?"]


def turn_of(backbone: Backbone, n: int) -> Turn:
    """A question that recalls memory n and answers, a query for it, or ordinary talk."""
    ids = backbone.ids

    def sample(said: tuple[Message, ...]) -> Sample:
        prompt = encode_prompt(backbone, said)
        if n % 3 == 1:
            target = encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
            return supervised(prompt, target, "query", recall=2, memory_index=n, teacher_row=n)
        text = recall_pieces(backbone, f"The rule says {n}.", 2) if n % 3 == 0 else ["I know this."]
        target = encode_pieces(backbone.tokenizer, answer_pieces(backbone, text, f"{n} it is"))
        if n % 3 == 2:
            return supervised(prompt, target, "sft_only")
        at = target.index(ids.recall)
        made = supervised(
            prompt, target, "memory_full", recall=at, pad=at + 1, num_pads=2, memory_index=n, teacher_row=n
        )
        return replace(made, loss_weights=tuple(1.0 + i % 3 for i in range(len(made))))

    return Turn((Message("user", ASKED[n % len(ASKED)]),), f"{n} it is", sample)


def dialogue(backbone: Backbone, count: int = 5) -> list[Sample]:
    turns = [turn_of(backbone, n) for n in range(count)]
    return next(
        samples
        for seed in range(100)
        for samples in as_dialogues(turns, count, 10_000, random.Random(seed))
        if len(samples) == count
    )


def two_vectors(backbone: Backbone) -> MemoryTerm:
    bank = random_bank(backbone)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(len(bank), 2, backbone.hidden_size, generator=generator)
    bank.take_values(torch.nn.functional.normalize(values, dim=-1))
    return memory_term(bank, LoraTrainConfig(), train_keys=True, train_values=True)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_shared_row_has_the_losses_and_gradients_of_its_samples(lively: Backbone, attention: str) -> None:
    """Weights, keys and fed vectors get the gradient that a row each would give."""
    lively.model.set_attn_implementation(attention)
    samples = dialogue(lively)
    found = []
    for sharing in (False, True):
        memory = two_vectors(lively)
        weights = [lively.model.get_input_embeddings().weight, *memory.parameters()]
        for weight in weights:
            weight.requires_grad_(True)
            weight.grad = None
        batch = collate(samples, int(lively.tokenizer.pad_token_id), CPU, sharing=sharing)
        losses = MemoryLM(lively.model, memory)(batch)
        sum(losses.values()).backward()
        found.append((batch, losses, [weight.grad.clone() for weight in weights]))
        lively.model.get_input_embeddings().weight.grad = None
    (apart, alone, alone_grads), (tree, shared, shared_grads) = found
    assert tree.num_tokens < apart.num_tokens
    assert (len(apart.input_ids_BT), len(tree.input_ids_BT)) == (len(samples), 1)
    assert shared.keys() == alone.keys() == {"lm", "retrieval"}
    for name in alone:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(shared_grads, alone_grads, strict=True):
        assert float(one.abs().max()) > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_another_branch_says_is_not_seen(lively: Backbone) -> None:
    """One turn's think changes no other turn's loss."""
    samples = dialogue(lively)
    changed = next(n for n, s in enumerate(samples[:-1]) if s.kind == "sft_only")
    ids = list(samples[changed].input_ids)
    ids[samples[changed].labels.index(lively.ids.think) + 2] = 7
    others = list(samples)
    others[changed] = replace(samples[changed], input_ids=tuple(ids))

    def loss_without_it(row: list[Sample]) -> torch.Tensor:
        silent = [replace(s, labels=(IGNORE,) * len(s)) if n == changed else s for n, s in enumerate(row)]
        batch = collate(silent, int(lively.tokenizer.pad_token_id), CPU, sharing=True)
        with torch.no_grad():
            return MemoryLM(lively.model, two_vectors(lively))(batch)["lm"]

    torch.testing.assert_close(loss_without_it(others), loss_without_it(samples))


@given(st.data())
def test_a_row_holds_every_sample_in_order(data: st.DataObject) -> None:
    """Each sample's places give its tokens and positions back; a place is shared only where nothing is learnt."""
    trunk = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=8))
    samples = []
    for _ in range(data.draw(st.integers(1, 5))):
        prompt = trunk[: data.draw(st.integers(1, len(trunk)))]
        target = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        pad = data.draw(st.one_of(st.none(), st.integers(0, len(target) - 1)))
        made = supervised(prompt, target, "memory_full", pad=pad, memory_index=0)
        samples.append(replace(made, labels=(IGNORE,) * len(made)) if data.draw(st.booleans()) else made)
    row = Row()
    for sample in samples:
        row.add(sample)
    owners: dict[int, set[int]] = {}
    mask = row.mask(len(row) + 2)
    for n, (sample, places) in enumerate(zip(row.samples, row.places, strict=True)):
        assert [row.input_ids[p] for p in places] == list(sample.input_ids)
        assert [row.positions[p] for p in places] == list(range(len(sample)))
        for at, place in enumerate(places):
            owners.setdefault(place, set()).add(n)
            assert mask[place].nonzero().flatten().tolist() == sorted(places[: at + 1])
    assert set(owners) == set(range(len(row)))
    assert len(row) <= sum(map(len, samples))
    for sample, places in zip(row.samples, row.places, strict=True):
        first = next((i for i, label in enumerate(sample.labels) if label != IGNORE), len(sample))
        first = first if sample.pad_position < 0 else min(first, sample.pad_position)
        assert all(len(owners[p]) == 1 for p in places[first:])


def test_strangers_stand_apart() -> None:
    """What two samples share must be more than a short beginning."""

    def sample(shared: int, own: int) -> Sample:
        return supervised([*range(shared), own], [own], "sft_only")

    assert len(lay_out([sample(MIN_SHARED, 100), sample(MIN_SHARED, 101)])) == 1
    assert len(lay_out([sample(MIN_SHARED - 1, 100), sample(MIN_SHARED - 1, 101)])) == 2
    assert len(lay_out([sample(MIN_SHARED, 100), sample(MIN_SHARED, 101)], sharing=False)) == 2


def test_turns_stand_behind_what_was_said_before(lively: Backbone) -> None:
    turns = [turn_of(lively, n) for n in range(40)]
    dialogues = as_dialogues(turns, 4, 10_000, random.Random(0))
    text = [[lively.tokenizer.decode(list(s.input_ids)) for s in samples] for samples in dialogues]
    assert sum(map(len, dialogues)) == len(turns)
    assert set(map(len, dialogues)) == {1, 2, 3, 4}
    for samples in text:
        for earlier, later in itertools.pairwise(samples):
            said = earlier.partition("<think>")[0]
            assert later.startswith(said)
            assert later.count("it is") > earlier.partition("<think>")[0].count("it is")
    assert [len(s) for s in as_dialogues(turns, 1, 10_000, random.Random(0))] == [1] * 40


def test_a_dialogue_keeps_to_its_tokens(lively: Backbone) -> None:
    turns = [turn_of(lively, n) for n in range(12)]
    longest = max(len(turn.sample(turn.messages)) for turn in turns)
    for samples in as_dialogues(turns, 6, 2 * longest, random.Random(0)):
        assert sum(map(len, lay_out(samples))) <= 2 * longest
    assert all(len(samples) == 1 for samples in as_dialogues(turns, 6, 1, random.Random(0)))


def test_a_dialogue_stays_in_one_batch(lively: Backbone) -> None:
    turns = [turn_of(lively, n) for n in range(24)]
    dialogues = as_dialogues(turns, 4, 300, random.Random(0))
    batches = dialogues_grouped(dialogues, 600, random.Random(0))
    home = {id(sample): n for n, batch in enumerate(batches) for sample in batch}
    assert len(home) == len(turns)
    assert all(len({home[id(sample)] for sample in samples}) == 1 for samples in dialogues)
    for batch in batches:
        width = collate(batch, 0, CPU, sharing=True).input_ids_BT.numel()
        assert width <= 600 or len(lay_out(batch)) == 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_a_dialogue_average_to_the_whole(lively: Backbone, world: int) -> None:
    samples, memory = dialogue(lively), two_vectors(lively)
    pad = int(lively.tokenizer.pad_token_id)
    with torch.no_grad():
        whole = MemoryLM(lively.model, memory)(collate(samples, pad, CPU))
        parts = [share_of(samples, rank, world, pad, CPU, 8, sharing=True) for rank in range(world)]
        losses = [MemoryLM(lively.model, memory)(part) for part in parts]
    assert {part.num_tokens for part in parts} == {sum(map(len, lay_out(samples)))}
    for name, value in whole.items():
        mean = sum(found.get(name, torch.tensor(0.0)) for found in losses) / world
        torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-5)


def test_training_counts_what_is_computed(lively: Backbone) -> None:
    samples = dialogue(lively)
    config = LoraTrainConfig(max_tokens=10**6)
    log = train_lora(lively, iter([[samples]]), config, stage="", memory=two_vectors(lively))
    assert can_share(lively.model)
    assert log.forward_tokens == sum(map(len, lay_out(samples))) < sum(map(len, samples))


def test_a_model_with_a_window_shares_nothing() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=32, sliding_window=8,
    )  # fmt: skip
    assert not can_share(MistralForCausalLM(config))


def test_samples_alone_are_batched_as_dialogues_of_one() -> None:
    samples = [supervised([1], [2] * n, "sft_only") for n in range(1, 24)]
    alone = [[sample] for sample in samples]
    assert length_grouped(samples, 128, random.Random(0)) == dialogues_grouped(alone, 128, random.Random(0))
