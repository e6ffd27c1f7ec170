"""Writing without training: only vectors move, and what is called exact is what the greedy decode says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from model_script import random_bank
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Context, Indexer, MethodError
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from methods.recall.method import RecallConfig, RecallMethod
from methods.recall.stage2 import train_memory_decoding
from methods.recall.writing import WriteConfig, _sample, _token_weights, optimise_values, query_states
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, no_progress
from tasks.base import Memory, Message

MEMORIES = [Memory("a", "oak"), Memory("b", "elm")]
CONTEXTS = [[(Message("user", "Which?"),), (Message("user", "And?"),)]] * 2
GAIN = 8.0
LONG = WriteConfig(max_steps=400, learning_rate=0.1)


@pytest.fixture
def decoder(lively: Backbone) -> Backbone:
    """A tiny model that has learnt to decode a few vectors; a random one can be led to say nothing exactly."""
    texts = ["oak", "elm", "ash", "fir"]
    bank = MemoryBank(torch.zeros(lively.hidden_size), GAIN, "")
    vectors = torch.randn(len(texts), lively.hidden_size, generator=torch.Generator().manual_seed(1))
    bank.write(texts, texts, vectors, vectors)
    samples = [
        replace(_sample(lively, Memory(text, text), messages), memory_index=index)
        for index, text in enumerate(texts)
        for messages in CONTEXTS[0]
    ]
    config = LoraTrainConfig(max_tokens=120_000, learning_rate=1e-2, batch_tokens=512)
    train_memory_decoding(lively, bank, itertools.repeat([samples]), config, no_progress)
    return lively


def start_of(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(len(MEMORIES), backbone.hidden_size, generator=generator), dim=-1)


def decoded(backbone: Backbone, value_D: torch.Tensor, messages: tuple[Message, ...]) -> str:
    """What the decode loop makes of the vector: greedy, free-running."""
    bank = MemoryBank(torch.zeros(backbone.hidden_size), GAIN, "")
    bank.write(["x"], ["x"], value_D[None], value_D[None])
    ids = backbone.ids
    prompt = encode_prompt(backbone, messages)
    prompt += encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
    interceptor = RecallInterceptor(bank, ids, AutoregressiveRecall())
    (output,) = generate(backbone, [prompt], 12, interceptor=interceptor)
    new = list(output.token_ids)
    return str(backbone.tokenizer.decode(new[1 : new.index(ids.recall_end)])) if ids.recall_end in new else ""


def test_exact_means_that_the_greedy_decode_is_exact(decoder: Backbone) -> None:
    """For every context, and no weight has moved or holds a gradient."""
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    written = optimise_values(decoder, MEMORIES, start_of(decoder), CONTEXTS, GAIN, LONG)
    assert any(written.exact)
    for memory, value_D, exact in zip(MEMORIES, written.values_ND, written.exact, strict=True):
        if exact:
            assert [decoded(decoder, value_D, messages) for messages in CONTEXTS[0]] == [memory.text] * 2
    torch.testing.assert_close(written.values_ND.norm(dim=-1), torch.ones(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder.model.state_dict().items())
    assert all(p.grad is None for p in decoder.model.parameters())


def test_an_exact_memory_stops_at_once(decoder: Backbone) -> None:
    """The second time its value is the start: as many steps as it must be exact in a row."""
    first = optimise_values(decoder, MEMORIES, start_of(decoder), CONTEXTS, GAIN, LONG)
    done = [n for n, exact in enumerate(first.exact) if exact]
    assert done
    memories = [MEMORIES[n] for n in done]
    again = optimise_values(decoder, memories, first.values_ND[done], CONTEXTS, GAIN, LONG)
    assert again.steps == (LONG.patience,) * len(done)
    assert all(first.steps[n] > LONG.patience for n in done)
    torch.testing.assert_close(again.values_ND, first.values_ND[done], atol=0.3, rtol=0)


def test_no_steps_no_change(lively: Backbone) -> None:
    written = optimise_values(lively, MEMORIES, start_of(lively), CONTEXTS, GAIN, WriteConfig(max_steps=0))
    torch.testing.assert_close(written.values_ND, start_of(lively))
    assert written.exact == (False, False)
    assert written.forward_tokens == 0


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([True, True, True], [1, 1, 1]),
        ([False, True, True, True], [1, 1, 1, 0.2]),  # two tokens behind the first wrong one count in full
        ([True, False, False, True, True], [1, 1, 1, 1, 0.2]),
    ],
)
def test_targets_grow(right: list[bool], expected: list[float]) -> None:
    weights = _token_weights(torch.tensor(right), WriteConfig(growth=2, later_weight=0.2))
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float))


def test_query_states_are_what_the_memory_head_sees(lively: Backbone) -> None:
    bank = random_bank(lively)
    messages = (Message("user", "Where do the skates go?"),)
    ids = lively.ids
    prompt = encode_prompt(lively, messages) + encode_pieces(lively.tokenizer, [ids.think, "\n", ids.recall])
    interceptor = RecallInterceptor(bank, ids, AutoregressiveRecall())
    generate(lively, [prompt], 2, interceptor=interceptor)
    (event,) = interceptor.events[0]
    cosines = query_states(lively, [messages, (Message("user", "A longer one, so that it is padded?"),)])
    assert float(cosines[0] @ bank.keys_MD[event.memory_index]) == pytest.approx(event.score, abs=1e-5)


def test_the_start_is_the_nearest_memorys_value_where_one_is_near() -> None:
    bank = MemoryBank(torch.zeros(4), 1.0, "")
    keys, values = torch.eye(4)[:3], torch.eye(4)[1:]
    bank.write([NULL_ID, "a", "b"], ["null", "A", "B"], keys, values)
    near = F.normalize(torch.tensor([[0.0, 1.0, 0.2, 0.0]]), dim=-1)
    far = F.normalize(torch.tensor([[0.9, 0.1, 0.1, 0.9]]), dim=-1)  # the null memory does not count
    assert torch.equal(bank.nearest_values(near, 0.7), values[1][None])
    assert torch.equal(bank.nearest_values(far, 0.7), far)


def test_written_memories_are_found_and_forgotten_exactly(pristine_lively: Backbone) -> None:
    backbone = pristine_lively.clone()
    method = RecallMethod(MethodSetup(backbone), RecallConfig(write=WriteConfig(max_steps=3)))
    method.bank = method._make_bank([Memory("old", "Skates are returned by noon.")], [])
    keys, values = method.bank.keys_MD.clone(), method.bank.values_MD.clone()
    report = method.write(
        [Memory("new", "Oars are kept in shed four.", "Oars"), Memory("x", "Nets dry on Monday.")]
    )
    assert report.num_memories == 2
    assert report.trained_tokens > 0
    assert method.bank.ids == [NULL_ID, "old", "new", "x"]
    assert torch.equal(method.bank.keys_MD[:2], keys)
    assert torch.equal(method.bank.values_MD[:2], values)
    assert method.answer(Context((Message("user", "Where are oars kept?"),), 4)).raw
    method.forget(["new", "x"])
    assert torch.equal(method.bank.keys_MD, keys)
    assert torch.equal(method.bank.values_MD, values)


def test_a_memory_without_text_or_with_a_known_id_twice_is_refused_before_any_work(lively: Backbone) -> None:
    method = RecallMethod(MethodSetup(lively))
    method.bank = random_bank(lively)
    with pytest.raises(MethodError, match="'n' has no text"):
        method.write([Memory("n", "  ")])
    with pytest.raises(MethodError, match="two memories have the id 'n'"):
        method.write([Memory("n", "A."), Memory("n", "B.")])


def test_indexed_memories_are_found_but_nothing_is_optimised(pristine_lively: Backbone) -> None:
    method = RecallMethod(MethodSetup(pristine_lively.clone()))
    method.bank = method._make_bank([Memory("old", "Skates are returned by noon.")], [])
    assert isinstance(method, Indexer)
    report = method.index([Memory("new", "Oars are kept in shed four.", "Oars")])
    assert report.trained_tokens == 0
    assert method.bank.ids == [NULL_ID, "old", "new"]
