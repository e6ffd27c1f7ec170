"""Writing without training: only vectors move, and what is called exact is what the greedy decode says."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from model_script import random_bank
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Context, Indexer, MethodError
from methods.chat import encode_pieces, encode_prompt, recall_prompt
from methods.decode import generate
from methods.prefixes import compute_prefixes
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig, make_bank
from methods.recall.writing import (
    ValueJob,
    WriteConfig,
    WrittenValue,
    _rest,
    leads,
    optimise_values,
    plan_starts,
    query_states,
    spread_start,
    target_logits,
    within_norm,
)
from methods.samples import recall_pieces, supervised
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm, train_lora
from tasks.base import QA, Memory, Message
from tasks.examples import Example

MEMORIES = [Memory("a", "oak"), Memory("b", "elm")]
OLD = [Memory("old", "Skates are returned by noon.")]
CONTEXTS = [(Message("user", "Which?"),), (Message("user", "And?"),)]
GAIN = 8.0
LONG = 400  # steps


def settings(patch: pytest.MonkeyPatch, **constants: float) -> None:
    """Constants of `methods.recall.writing`."""
    for name, value in constants.items():
        patch.setattr(f"methods.recall.writing.{name}", value)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's token is a byte, and it takes large steps."""
    settings(monkeypatch, LEARNING_RATE=0.3, TOKENS_PER_VECTOR=2)


@pytest.fixture(scope="module")
def decoder(pristine_lively: Backbone) -> Backbone:
    """A tiny model that has learnt to decode a few vectors; a random one can be led to say nothing exactly."""
    lively = pristine_lively.clone()
    texts = ["oak", "elm", "ash", "fir"]
    values_MD = torch.randn(len(texts), lively.facts.hidden_size, generator=torch.Generator().manual_seed(1))
    samples = []
    for index, text in enumerate(texts):
        for messages in CONTEXTS:
            target = encode_pieces(lively.tokenizer, [lively.ids.think, "\n", *recall_pieces(lively, text)])
            pad = target.index(lively.ids.memory_pad)
            prompt = encode_prompt(lively, messages)
            samples.append(
                supervised(prompt, target, "memory_front", pad=pad, memory_index=index, target_loss_from=pad)
            )
    config = LoraTrainConfig(max_tokens=300 * sum(map(len, samples)), learning_rate=1e-2, batch_tokens=512)
    memory = MemoryTerm(values_MD, values_MD[:, None], GAIN)
    train_lora(lively, itertools.repeat([samples]), config, stage="", memory=memory)
    return lively


def start_of(backbone: Backbone, index: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return F.normalize(torch.randn(1, backbone.facts.hidden_size, generator=generator), dim=-1) * GAIN


def job_of(memory: Memory, start: torch.Tensor, contexts: Sequence[tuple[Message, ...]] = CONTEXTS) -> ValueJob:
    return ValueJob(memory, [Example(messages, memory.id, memory.text) for messages in contexts], start)


def written_alone(backbone: Backbone, memory: Memory, start: torch.Tensor, max_steps: int = LONG) -> WrittenValue:
    (value,) = optimise_values(backbone, [job_of(memory, start)], max_steps, GAIN)
    return value


def decoded(backbone: Backbone, fed_PD: torch.Tensor, messages: tuple[Message, ...]) -> str:
    """What the decode loop makes of the vectors: greedy, free-running."""
    bank = MemoryBank(torch.zeros(backbone.facts.hidden_size), GAIN, "")
    bank.write(["x"], ["x"], fed_PD[:1], [fed_PD])
    ids = backbone.ids
    mechanism = RecallMechanism(bank, backbone, AutoregressiveRecall())
    (output,) = generate(backbone, [recall_prompt(backbone, messages)], 12, mechanism=mechanism)
    new = list(output.token_ids)
    assert new[: len(fed_PD)] == [ids.memory_pad] * len(fed_PD)
    return (
        str(backbone.tokenizer.decode(new[len(fed_PD) : new.index(ids.recall_end)]))
        if ids.recall_end in new
        else ""
    )


@pytest.mark.parametrize("tokens_per_vector", [2, 1])
def test_exact_means_that_the_greedy_decode_is_exact(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch, tokens_per_vector: int
) -> None:
    """For few vectors and for many, in every conversation; no weight has moved or holds a gradient."""
    settings(monkeypatch, TOKENS_PER_VECTOR=tokens_per_vector)
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    found = []
    for index, memory in enumerate(MEMORIES):
        written = written_alone(decoder, memory, start_of(decoder, index))
        assert len(written.fed_PD) == -(-len(f"{memory.text}>") // tokens_per_vector)
        assert 0 < written.steps <= LONG
        found.append(written.exact)
        if written.exact:
            assert [decoded(decoder, written.fed_PD, messages) for messages in CONTEXTS] == [memory.text] * 2
    assert any(found)
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder.model.state_dict().items())
    assert all(p.grad is None for p in decoder.model.parameters())


def test_an_exact_value_is_left_as_it_is(decoder: Backbone) -> None:
    """No step is taken where nothing is wrong."""
    first = written_alone(decoder, MEMORIES[0], start_of(decoder))
    assert first.exact
    again = written_alone(decoder, MEMORIES[0], first.fed_PD)
    assert again.exact and again.steps == 0
    torch.testing.assert_close(again.fed_PD, first.fed_PD)  # its norm is held once more


def test_what_the_steps_did_not_reach_is_not_called_exact(lively: Backbone) -> None:
    start = start_of(lively)
    written = written_alone(lively, MEMORIES[0], start, max_steps=1)
    assert not written.exact
    assert written.steps == 1
    assert not torch.equal(written.fed_PD, start)


def test_one_vector_for_so_many_tokens(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny tokenizer has a token a byte; </recall> counts."""
    settings(monkeypatch, TOKENS_PER_VECTOR=4)
    counts = [
        len(written_alone(lively, Memory("n", text), start_of(lively), max_steps=0).fed_PD)
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


def test_a_lead_is_counted_against_the_best_other_token() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.5]])
    torch.testing.assert_close(leads(logits, torch.tensor([0, 2])), torch.tensor([1.0, 1.5]))
    torch.testing.assert_close(leads(logits, torch.tensor([1, 0])), torch.tensor([-1.0, -2.5]))


def test_rows_side_by_side_get_what_each_gets_alone(lively: Backbone) -> None:
    """Beginnings, numbers of vectors and targets differ; the yardstick is one forward of the whole sequence."""
    conversations = [(Message("user", "A long question, so that others are padded?"),), *CONTEXTS]
    fed = [torch.cat([start_of(lively, row)] * count) for row, count in enumerate((3, 1, 2))]
    targets = [torch.tensor(lively.tokenizer(text).input_ids) for text in ("ox", "some text", "elk")]
    prompts = [recall_prompt(lively, messages) for messages in conversations]
    prefixes = compute_prefixes(lively.model, prompts)
    for row, logits_TV in enumerate(target_logits(lively, prefixes, fed, targets)):
        embed = lively.model.get_input_embeddings()
        prompt = torch.tensor(prompts[row])
        whole = torch.cat([embed(prompt), fed[row], embed(targets[row][:-1])])[None]
        with torch.no_grad():
            said = lively.model(inputs_embeds=whole).logits[0, len(prompt) + len(fed[row]) - 1 :]
        torch.testing.assert_close(logits_TV.detach(), said, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_values_side_by_side_are_those_of_one_at_a_time(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Also where more wait than fit in."""
    memories = [*MEMORIES, Memory("c", "ashes"), Memory("d", "fir")]
    jobs = [job_of(m, start_of(decoder, row), CONTEXTS[: 1 + row % 2]) for row, m in enumerate(memories)]
    max_steps = 12  # rounding grows with every step
    settings(monkeypatch, LEARNING_RATE=0.1, BATCH_SIZE=1)
    alone = optimise_values(decoder, jobs, max_steps, GAIN)
    settings(monkeypatch, BATCH_SIZE=batch_size)
    together = optimise_values(decoder, jobs, max_steps, GAIN)
    assert len({value.steps for value in alone}) > 1  # some leave the batch before others
    for one, other in zip(alone, together, strict=True):
        assert (one.steps, one.exact, one.forward_tokens) == (other.steps, other.exact, other.forward_tokens)
        torch.testing.assert_close(one.fed_PD, other.fed_PD, atol=2e-3, rtol=2e-3)


def test_no_more_values_are_optimised_side_by_side_than_asked(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is full while values wait, and shrinks once none is left."""
    rows: list[int] = []

    def spy(backbone: Backbone, prefixes: Sequence[object], *rest: object) -> object:
        rows.append(len(prefixes))
        return target_logits(backbone, prefixes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("methods.recall.writing.target_logits", spy)
    jobs = [job_of(Memory(str(n), "oak"), start_of(decoder, n)) for n in range(5)]
    told: list[tuple[int, int]] = []
    settings(monkeypatch, BATCH_SIZE=3)
    optimise_values(decoder, jobs, 30, GAIN, progress=lambda done, of: told.append((done, of)))
    assert max(rows) == 3
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 3
    assert told == [(n, 5) for n in range(6)]


@pytest.mark.parametrize("max_norm", [1.0, 1.5])
def test_no_vector_is_longer_than_allowed(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch, max_norm: float
) -> None:
    """From a start within the bound and from one beyond it."""
    settings(monkeypatch, MAX_NORM=max_norm)
    for scale in (0.5, 3.0):
        value = written_alone(decoder, MEMORIES[0], start_of(decoder) * scale, max_steps=20)
        assert value.steps > 0
        assert float(value.fed_PD.norm(dim=-1).max()) <= max_norm * GAIN * (1 + 1e-5)
    settings(monkeypatch, MAX_NORM=float("inf"))
    free = written_alone(decoder, MEMORIES[0], start_of(decoder) * 3.0, max_steps=20)
    assert float(free.fed_PD.norm(dim=-1).max()) > max_norm * GAIN


def test_only_what_is_too_long_is_shortened() -> None:
    fed_PD = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(within_norm(fed_PD, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert torch.equal(within_norm(fed_PD, float("inf")), fed_PD)


CUED = Example(CONTEXTS[0], "a", "oak", reasoning="So it is.", answer="An oak.")


def test_what_follows_a_text_is_what_the_answer_format_says(lively: Backbone) -> None:
    rest = _rest(lively, CUED)
    assert rest[-1] == lively.ids.eos
    assert lively.tokenizer.decode(rest[:-1]) == "\nSo it is.\n</think>\nAn oak."
    assert _rest(lively, replace(CUED, answer="")) == []


def test_the_loss_covers_the_answer_and_exact_means_the_text_alone(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes nearer though the model cannot say it; that it does not say it makes no value inexact."""
    value = written_alone(decoder, MEMORIES[0], start_of(decoder))
    assert value.exact
    job = ValueJob(MEMORIES[0], [CUED], value.fed_PD)
    settings(monkeypatch, READ_STEPS=20)
    (read,) = optimise_values(decoder, [job], LONG, GAIN)
    assert read.steps >= 20
    assert read.exact
    assert decoded(decoder, read.fed_PD, CUED.messages) == "oak"
    text = encode_pieces(decoder.tokenizer, ["oak", decoder.ids.recall_end])
    target_T = torch.tensor(text + _rest(decoder, CUED))
    prefixes = compute_prefixes(decoder.model, [recall_prompt(decoder, CUED.messages)])

    def answer_loss(fed_PD: torch.Tensor) -> float:
        (logits_TV,) = target_logits(decoder, prefixes, [fed_PD], [target_T])
        return float(F.cross_entropy(logits_TV[len(text) :], target_T[len(text) :]))

    assert answer_loss(read.fed_PD) < answer_loss(value.fed_PD)
    settings(monkeypatch, READ_STEPS=0)
    (off,) = optimise_values(decoder, [job], LONG, GAIN)
    assert off.steps == 0
    torch.testing.assert_close(off.fed_PD, value.fed_PD)


def test_query_states_are_what_the_memory_head_sees(lively: Backbone) -> None:
    bank = random_bank(lively)
    messages = (Message("user", "Where do the skates go?"),)
    mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
    generate(lively, [recall_prompt(lively, messages)], 2, mechanism=mechanism)
    (event,) = mechanism.events[0]
    cosines = query_states(lively, [messages, (Message("user", "A longer one, so that it is padded?"),)])
    assert float(cosines[0] @ bank.keys_MD[event.memory_index]) == pytest.approx(event.score, abs=1e-5)


def test_the_start_is_the_nearest_memorys_value_where_one_is_near() -> None:
    """Of the bank as it is; the null memory does not count."""
    bank = MemoryBank(torch.zeros(4), 2.0, "")
    keys, values = torch.eye(4)[:3], torch.eye(4)[1:]
    several = torch.tensor([[5.0, 0, 0, 0], [0, 7.0, 0, 0]])
    bank.write([NULL_ID, "a", "b"], ["null", "A", "B"], keys, [values[:1] * 2, values[1:2] * 2, several])
    near_null = F.normalize(torch.tensor([1.0, 0.1, 0.1, 0.0]), dim=-1)
    near_a = F.normalize(torch.tensor([0.0, 1.0, 0.2, 0.0]), dim=-1)
    near_b = F.normalize(torch.tensor([0.0, 0.2, 1.0, 0.0]), dim=-1)
    far = F.normalize(torch.tensor([0.1, 0.1, 0.1, 0.9]), dim=-1)
    starts = plan_starts(bank, torch.stack([near_null, near_a, near_b, far]))
    assert torch.equal(starts[0], near_null[None] * 2)
    assert torch.equal(starts[1], values[1][None] * 2)
    assert torch.equal(starts[2], several)
    assert torch.equal(starts[3], far[None] * 2)
    empty = MemoryBank(torch.zeros(4), 2.0, "")
    assert torch.equal(plan_starts(empty, near_a[None])[0], near_a[None] * 2)


def test_written_memories_are_found_and_forgotten_exactly(pristine_lively: Backbone) -> None:
    backbone = pristine_lively.clone()
    config = RecallConfig(vectors_per_memory=1, write=WriteConfig(max_steps=3))
    method = RecallMethod(MethodSetup(backbone), config)
    method.bank = make_bank(backbone, OLD, 1, seed=0)
    keys, fed = method.bank.keys_MD.clone(), torch.stack(method.bank.fed)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    new = [Memory("new", "Oars are kept in shed four.", "Oars"), Memory("x", "Nets dry on Monday.")]
    report = method.write(new)
    assert report.num_memories == 2
    assert report.trained_tokens > 0
    assert set(report.exact) | set(report.inexact) == {"new", "x"}
    assert report.steps.keys() == {"new", "x"}
    assert report.bytes_stored == method.bank.num_bytes
    assert method.bank.ids == [NULL_ID, "old", "new", "x"]
    assert torch.equal(method.bank.keys_MD[:2], keys)
    assert torch.equal(torch.stack(method.bank.fed[:2]), fed)
    num_tokens = [len(memory.text) + 1 for memory in new]  # with </recall>
    assert [len(fed_PD) for fed_PD in method.bank.fed[2:]] == [-(-n // 2) for n in num_tokens]
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert method.answer(Context((Message("user", "Where are oars kept?"),), 4)).raw
    method.forget(["new", "x"])
    assert torch.equal(method.bank.keys_MD, keys)
    assert torch.equal(torch.stack(method.bank.fed), fed)


@pytest.mark.parametrize("num_vectors", [0, 1, 3])
def test_what_is_indexed_takes_as_much_as_what_was_fitted(pristine_lively: Backbone, num_vectors: int) -> None:
    """Found, not made decodable: its vectors stay where a fit's would start."""
    method = RecallMethod(MethodSetup(pristine_lively), RecallConfig(vectors_per_memory=num_vectors))
    method.bank = make_bank(pristine_lively, OLD, num_vectors, seed=0)
    assert isinstance(method, Indexer)
    before = method.stored_bytes()
    new = Memory("new", "Oars are kept in shed four.", "Oars")
    report = method.index([new])
    assert report.trained_tokens == 0
    assert report.exact == report.inexact == ()
    assert method.bank.ids == [NULL_ID, "old", "new"]
    taken = (1 + num_vectors) * pristine_lively.facts.hidden_size * 4 + len(new.text)
    assert report.bytes_stored == method.stored_bytes() == before + taken
    shape = num_vectors, pristine_lively.facts.hidden_size
    assert [tuple(fed_PD.shape) for fed_PD in method.bank.fed] == [shape] * 3
    for fed_PD in method.bank.fed:
        torch.testing.assert_close(fed_PD.norm(dim=-1), torch.full((num_vectors,), method.bank.gain))


def test_the_report_and_a_warning_name_what_is_not_exact(
    decoder: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One text that can be reached and one that the steps cannot reach."""
    monkeypatch.setattr("methods.recall.method.GENERIC", CONTEXTS[:1])
    settings(monkeypatch, TOKENS_PER_VECTOR=1)  # what is easy
    method = RecallMethod(MethodSetup(decoder), RecallConfig(write=WriteConfig(max_steps=LONG)))
    bank = method.bank = make_bank(decoder, OLD, 1, seed=0)
    bank.gain = GAIN
    fed = bank.memory_embeddings(1).clone()
    with caplog.at_level(logging.WARNING):
        short = method.write([Memory("short", "oak")])
        method.config = RecallConfig(write=WriteConfig(max_steps=3))
        long = method.write([Memory("long", "No three steps lead to this.")])
    assert (short.exact, short.inexact) == (("short",), ())
    assert 0 < short.steps["short"] <= LONG
    assert (long.exact, long.inexact) == ((), ("long",))
    assert long.steps == {"long": 3}
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == ["long"]
    assert torch.equal(bank.memory_embeddings(1), fed)
    asked = [*(example.messages for example in method._questions(Memory("short", "oak"))), CONTEXTS[0]]
    written_PD = bank.memory_embeddings(bank.index("short"))
    assert {decoded(decoder, written_PD, messages) for messages in asked} == {"oak"}


def test_a_cued_memory_is_written_with_its_answers(pristine_lively: Backbone) -> None:
    """What follows the text in the answer is learnt with it."""
    cue = QA("q", "Where are oars kept?", "shed four", ("n",), think="The shed is named.")
    tokens: dict[str, int] = {}
    for asked in (cue, replace(cue, answer="", think="")):
        method = RecallMethod(MethodSetup(pristine_lively.clone()), RecallConfig(write=WriteConfig(max_steps=5)))
        method.bank = make_bank(method.backbone, OLD, 8, seed=0)
        report = method.write([Memory("n", "Oars lie in shed four.", cues=(asked,))])
        assert report.steps == {"n": 5}
        tokens[asked.answer] = report.trained_tokens
    assert tokens["shed four"] > tokens[""]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(MethodError, match=r"write\.max_steps=-1 is below 0"):
        WriteConfig(max_steps=-1)


def test_a_memory_without_text_or_with_a_known_id_twice_is_refused_before_any_work(lively: Backbone) -> None:
    method = RecallMethod(MethodSetup(lively))
    method.bank = random_bank(lively)
    with pytest.raises(MethodError, match="'n' has no text"):
        method.write([Memory("n", "  ")])
    with pytest.raises(MethodError, match="two memories have the id 'n'"):
        method.write([Memory("n", "A."), Memory("n", "B.")])
