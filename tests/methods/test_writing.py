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
from methods.chat import encode_pieces, encode_prompt, supervised
from methods.decode import generate
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from methods.recall.method import RecallConfig, RecallMethod
from methods.recall.stage2 import train_memory_decoding
from methods.recall.writing import WriteConfig, _all_lead, fit_keys, optimise_value, query_states, spread_start
from methods.samples import recall_pieces
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, no_progress
from tasks.base import Memory, Message

MEMORIES = [Memory("a", "oak"), Memory("b", "elm")]
CONTEXTS = [(Message("user", "Which?"),), (Message("user", "And?"),)]
GAIN = 8.0
LONG = WriteConfig(max_steps=400, learning_rate=0.3, tokens_per_vector=2)


@pytest.fixture(scope="module")
def decoder(pristine_lively: Backbone) -> Backbone:
    """A tiny model that has learnt to decode a few vectors; a random one can be led to say nothing exactly."""
    lively = pristine_lively.clone()
    texts = ["oak", "elm", "ash", "fir"]
    bank = MemoryBank(torch.zeros(lively.hidden_size), GAIN, "")
    vectors = torch.randn(len(texts), lively.hidden_size, generator=torch.Generator().manual_seed(1))
    bank.write(texts, texts, vectors, vectors)
    samples = []
    for index, text in enumerate(texts):
        for messages in CONTEXTS:
            target = encode_pieces(lively.tokenizer, [lively.ids.think, "\n", *recall_pieces(lively, text)])
            pad = target.index(lively.ids.memory_pad)
            prompt = encode_prompt(lively, messages)
            samples.append(
                supervised(prompt, target, "memory_front", pad=pad, memory_index=index, target_loss_from=pad)
            )
    config = LoraTrainConfig(max_tokens=120_000, learning_rate=1e-2, batch_tokens=512)
    train_memory_decoding(lively, bank, itertools.repeat([samples]), config, no_progress)
    return lively


def start_of(backbone: Backbone, index: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return F.normalize(torch.randn(1, backbone.hidden_size, generator=generator), dim=-1) * GAIN


def decoded(backbone: Backbone, fed_PD: torch.Tensor, messages: tuple[Message, ...]) -> str:
    """What the decode loop makes of the vectors: greedy, free-running."""
    bank = MemoryBank(torch.zeros(backbone.hidden_size), GAIN, "")
    bank.write(["x"], ["x"], fed_PD[:1], [fed_PD])
    ids = backbone.ids
    prompt = encode_prompt(backbone, messages)
    prompt += encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
    interceptor = RecallInterceptor(bank, ids, AutoregressiveRecall())
    (output,) = generate(backbone, [prompt], 12, interceptor=interceptor)
    new = list(output.token_ids)
    assert new[: len(fed_PD)] == [ids.memory_pad] * len(fed_PD)
    return (
        str(backbone.tokenizer.decode(new[len(fed_PD) : new.index(ids.recall_end)]))
        if ids.recall_end in new
        else ""
    )


@pytest.mark.parametrize("tokens_per_vector", [2, 1])
def test_exact_means_that_the_greedy_decode_is_exact(decoder: Backbone, tokens_per_vector: int) -> None:
    """For few vectors and for many, in every conversation; no weight has moved or holds a gradient."""
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    config = replace(LONG, tokens_per_vector=tokens_per_vector)
    found = []
    for index, memory in enumerate(MEMORIES):
        written = optimise_value(decoder, memory, start_of(decoder, index), CONTEXTS, config)
        assert len(written.fed_PD) == -(-len(f"{memory.text}>") // tokens_per_vector)
        assert 0 < written.steps <= LONG.max_steps
        found.append(written.exact)
        if written.exact:
            assert [decoded(decoder, written.fed_PD, messages) for messages in CONTEXTS] == [memory.text] * 2
    assert any(found)
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder.model.state_dict().items())
    assert all(p.grad is None for p in decoder.model.parameters())


def test_an_exact_value_is_left_as_it_is(decoder: Backbone) -> None:
    """No step is taken where nothing is wrong."""
    first = optimise_value(decoder, MEMORIES[0], start_of(decoder), CONTEXTS, LONG)
    assert first.exact
    again = optimise_value(decoder, MEMORIES[0], first.fed_PD, CONTEXTS, LONG)
    assert again.exact and again.steps == 0
    assert torch.equal(again.fed_PD, first.fed_PD)


def test_what_the_steps_did_not_reach_is_not_called_exact(lively: Backbone) -> None:
    start = start_of(lively)
    written = optimise_value(lively, MEMORIES[0], start, CONTEXTS, WriteConfig(max_steps=1))
    assert not written.exact
    assert written.steps == 1
    assert not torch.equal(written.fed_PD, start)


def test_one_vector_for_so_many_tokens(lively: Backbone) -> None:
    """The tiny tokenizer has a token a byte; </recall> counts."""
    config = WriteConfig(max_steps=0, tokens_per_vector=4)
    counts = [
        len(optimise_value(lively, Memory("n", text), start_of(lively), CONTEXTS, config).fed_PD)
        for text in ("oak", "oaks", "oak and elm")
    ]
    assert counts == [1, 2, 3]


def test_a_start_is_cut_or_spread() -> None:
    start = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=-1) * 3
    assert torch.equal(spread_start(start, 1), start[:1])
    assert torch.equal(spread_start(start, 2), start)
    spread = spread_start(start, 4)
    assert torch.equal(spread[:2], start)
    torch.testing.assert_close(spread.norm(dim=-1), torch.full((4,), 3.0))
    assert len({tuple(vector.tolist()) for vector in spread}) == 4
    assert torch.equal(spread, spread_start(start, 4))


def test_a_target_must_lead_by_the_margin() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert _all_lead(logits, torch.tensor([0, 2]), 0.9)
    assert not _all_lead(logits, torch.tensor([0, 2]), 1.0)
    assert not _all_lead(logits, torch.tensor([0, 1]), 0.0)


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


def test_new_keys_answer_to_their_questions_and_leave_the_others_theirs() -> None:
    """Fitted keys are found, and stand further from a known memory and its question than the mean of states."""
    torch.manual_seed(0)
    common, own, other = F.normalize(torch.randn(3, 32), dim=-1)
    known = F.normalize(other + 0.2 * common, dim=-1)[None]
    before = known.clone()
    asked = [F.normalize(torch.stack([own + 3 * common, own + 3.2 * common]), dim=-1)]
    question = F.normalize(other + 3 * common, dim=-1)  # about the known memory
    text = F.normalize(torch.randn(1, 32), dim=-1)
    mean = fit_keys(text, asked, known, 0.05, WriteConfig(key_steps=0))
    fitted = fit_keys(text, asked, known, 0.05, WriteConfig())
    torch.testing.assert_close(fitted.norm(dim=-1), torch.ones(1))
    for keys in (mean, fitted):
        assert bool((asked[0] @ keys.T > asked[0] @ known.T).all())
    assert float(fitted[0] @ known[0]) < float(mean[0] @ known[0])
    assert float(question @ fitted[0]) < float(question @ mean[0])
    assert torch.equal(known, before)
    assert torch.equal(fit_keys(text, asked, known, 0.05, WriteConfig(query_weight=0.0)), text)


def test_siblings_with_like_questions_are_told_apart() -> None:
    torch.manual_seed(1)
    shared, *own = F.normalize(torch.randn(4, 32), dim=-1)
    asked = [F.normalize(torch.stack([4 * shared + v, 4 * shared + 1.2 * v]), dim=-1) for v in own]
    texts = F.normalize(torch.randn(3, 32), dim=-1)
    keys = fit_keys(texts, asked, torch.empty(0, 32), 0.05, WriteConfig())
    assert [(states @ keys.T).argmax(dim=-1).tolist() for states in asked] == [[0, 0], [1, 1], [2, 2]]


def test_the_start_is_the_nearest_memorys_value_where_one_is_near() -> None:
    bank = MemoryBank(torch.zeros(4), 2.0, "")
    keys, values = torch.eye(4)[:3], torch.eye(4)[1:]
    several = torch.tensor([[5.0, 0, 0, 0], [0, 7.0, 0, 0]])
    bank.write([NULL_ID, "a", "b"], ["null", "A", "B"], keys, [*values[:2], several])
    near_a = F.normalize(torch.tensor([0.0, 1.0, 0.2, 0.0]), dim=-1)
    near_b = F.normalize(torch.tensor([0.0, 0.2, 1.0, 0.0]), dim=-1)
    far = F.normalize(torch.tensor([0.9, 0.1, 0.1, 0.9]), dim=-1)  # the null memory does not count
    assert torch.equal(bank.nearest_fed(near_a, 0.7), values[1][None] * 2)
    assert torch.equal(bank.nearest_fed(near_b, 0.7), several)
    assert torch.equal(bank.nearest_fed(far, 0.7), far[None] * 2)


def test_written_memories_are_found_and_forgotten_exactly(pristine_lively: Backbone) -> None:
    backbone = pristine_lively.clone()
    method = RecallMethod(MethodSetup(backbone), RecallConfig(write=WriteConfig(max_steps=3)))
    method.bank = method._make_bank([Memory("old", "Skates are returned by noon.")], [])
    keys, values = method.bank.keys_MD.clone(), method.bank.values_MD.clone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    report = method.write(
        [Memory("new", "Oars are kept in shed four.", "Oars"), Memory("x", "Nets dry on Monday.")]
    )
    assert report.num_memories == 2
    assert report.trained_tokens > 0
    assert method.bank.ids == [NULL_ID, "old", "new", "x"]
    assert torch.equal(method.bank.keys_MD[:2], keys)
    assert torch.equal(method.bank.values_MD[:2], values)
    assert set(method.bank.several) == {"new", "x"}
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert method.answer(Context((Message("user", "Where are oars kept?"),), 4)).raw
    method.forget(["new", "x"])
    assert torch.equal(method.bank.keys_MD, keys)
    assert torch.equal(method.bank.values_MD, values)
    assert not method.bank.several


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
