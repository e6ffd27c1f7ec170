"""Recall while decoding: steps N, N+1 and N+2 of the specification (3.1 to 3.5), one state a row.

Scripts count forwards, so what they drive is decoded serially, a token a forward; that all of a memory in one
forward and its text as a draft make no difference is a test of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from model_script import EVERY_ROW, last_state, random_bank, says, scripted, spied
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import Answer, Context, MethodError
from methods.chat import encode_text
from methods.decode import Clock, Generated, generate, serially
from methods.recall.bank import MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.recall.spec import SpecRecallMethod
from methods.setup import MethodSetup
from tasks.base import Message

PROMPT = [40, 41, 42, 43]
NEW = 10


def recall_at(
    backbone: Backbone,
    bank: MemoryBank,
    script: dict[tuple[int, int], int],
    prompts: Sequence[Sequence[int]] = (PROMPT,),
    config: AutoregressiveRecall | None = None,
    **options: object,
) -> tuple[list[Generated], RecallMechanism]:
    mechanism = RecallMechanism(bank, backbone, config or AutoregressiveRecall(), **options)  # type: ignore[arg-type]
    with scripted(backbone, script), serially():
        outputs = generate(backbone, prompts, NEW, mechanism=mechanism)
    return outputs, mechanism


def test_n_n1_n2(lively: Backbone) -> None:
    """<recall> is fed as any token, the pad comes next, and what is fed there is vector x gain."""
    bank = random_bank(lively)
    recall, pad = lively.ids.recall, lively.ids.memory_pad
    with spied(lively) as feed:
        (output,), mechanism = recall_at(lively, bank, {(0, 2): recall})
    assert output.token_ids[2:4] == (recall, pad)
    assert output.token_ids.count(pad) == 1
    (event,) = mechanism.events[0]
    for step in range(1, NEW):  # forward `step` is fed new token `step - 1`
        fed, embeds = feed.input_ids[step], feed.inputs_embeds[step]
        if step == 4:
            assert fed is None
            assert embeds is not None
            (vector,) = bank.memory_embeddings(event.memory_index)
            assert torch.equal(embeds[0, 0], vector)
            torch.testing.assert_close(
                vector, F.normalize(bank.values_MPD[event.memory_index, 0], dim=0) * bank.gain
            )
        else:
            assert embeds is None
            assert fed is not None
            assert fed.tolist() == [[output.token_ids[step - 1]]]


def test_several_vectors_take_a_pad_each(lively: Backbone) -> None:
    """Rows of a batch that recall memories of three vectors, of one, and none; a cut row keeps its pads only."""
    bank = random_bank(lively)
    three = torch.randn(3, lively.facts.hidden_size, generator=torch.Generator().manual_seed(5))
    bank.write([bank.ids[2]], [bank.texts[2]], bank.keys_MD[[2]], [three])
    recall, pad = lively.ids.recall, lively.ids.memory_pad
    script = {(0, 1): recall, (1, 1): recall, (2, 4): recall, (3, NEW - 2): recall}
    with spied(lively) as feed:
        outputs, mechanism = recall_at(lively, bank, script, [PROMPT] * 4, force_memory=[2, 3, 3, 2])
    assert outputs[0].token_ids[1:5] == (recall, pad, pad, pad)
    assert [output.token_ids.count(pad) for output in outputs] == [3, 1, 1, 1]
    assert [len(events) for events in mechanism.events] == [1, 1, 1, 1]
    fed = [embeds for embeds in feed.inputs_embeds if embeds is not None]
    assert torch.equal(torch.stack([embeds[0, 0] for embeds in fed[:3]]), three)
    assert torch.equal(fed[0][1, 0], bank.memory_embeddings(3)[0])


def test_the_vector_decides_what_follows(lively: Backbone) -> None:
    """Else nothing would show that the injected embedding is what the model reads."""
    bank = random_bank(lively)
    followed = {
        tuple(recall_at(lively, bank, {(0, 2): lively.ids.recall}, force_memory=[index])[0][0].token_ids[4:])
        for index in range(len(bank))
    }
    assert len(followed) > 4


def test_the_argmax_of_the_memory_head_is_chosen(lively: Backbone) -> None:
    chosen = set()
    for seed in range(6):
        bank = random_bank(lively, seed=seed)
        (output,), mechanism = recall_at(lively, bank, {(0, 2): lively.ids.recall})
        query_D = last_state(lively, PROMPT + list(output.token_ids[:3]))
        cosines = F.cosine_similarity(query_D[None], bank.keys_MD)
        (event,) = mechanism.events[0]
        assert event.memory_index == int(cosines.argmax())
        assert event.score == pytest.approx(float(cosines.max()), abs=1e-5)
        assert [i for i, _ in event.candidates] == cosines.argsort(descending=True).tolist()
        chosen.add(event.memory_index)
    assert len(chosen) > 1


def test_a_planted_memory_is_chosen(lively: Backbone) -> None:
    """Its key is the query itself."""
    bank = random_bank(lively)
    script = {(0, 2): lively.ids.recall}
    (output,), _ = recall_at(lively, bank, script)
    query_1D = last_state(lively, PROMPT + list(output.token_ids[:3]))[None]
    bank.write(["planted"], ["planted"], query_1D, [query_1D])
    _, mechanism = recall_at(lively, bank, script)
    (event,) = mechanism.events[0]
    assert bank.ids[event.memory_index] == "planted"
    assert event.score == pytest.approx(1.0, abs=1e-5)


def test_a_prompt_that_ends_in_recall_recalls_at_once(lively: Backbone) -> None:
    bank = random_bank(lively)
    prompt = [*PROMPT, lively.ids.recall]
    with spied(lively) as feed:
        (output,), mechanism = recall_at(lively, bank, {}, [prompt], force_memory=[5])
    assert output.token_ids[0] == lively.ids.memory_pad
    assert feed.inputs_embeds[1] is not None
    assert torch.equal(feed.inputs_embeds[1][0, 0], bank.memory_embeddings(5)[0])
    assert [e.memory_index for e in mechanism.events[0]] == [5]


def test_rows_recall_at_their_own_steps(lively: Backbone) -> None:
    bank = random_bank(lively)
    recall, pad = lively.ids.recall, lively.ids.memory_pad
    prompts = [[3, 4, 5], [90, 91, 92, 93, 94, 95], [60], [70, 71]]
    steps: list[list[int]] = [[1], [4], [], [1, 5]]
    script = {(row, step): recall for row, at in enumerate(steps) for step in at}
    outputs, mechanism = recall_at(lively, bank, script, prompts)
    for row, (prompt, at) in enumerate(zip(prompts, steps, strict=True)):
        (alone,), single = recall_at(lively, bank, {(0, step): recall for step in at}, [prompt])
        assert outputs[row].token_ids == alone.token_ids
        assert [i for i, t in enumerate(alone.token_ids) if t == pad] == [step + 1 for step in at]
        assert [e.memory_index for e in mechanism.events[row]] == [e.memory_index for e in single.events[0]]
        assert len(single.events[0]) == len(at)


def test_a_neighbours_recall_feeds_the_other_rows_their_own_token(lively: Backbone) -> None:
    bank = random_bank(lively)
    with spied(lively) as feed:
        outputs, _ = recall_at(lively, bank, {(0, 2): lively.ids.recall}, [PROMPT, [60, 61]])
    embeds = feed.inputs_embeds[4]
    assert embeds is not None
    table = lively.model.get_input_embeddings().weight
    assert torch.equal(embeds[1, 0], table[outputs[1].token_ids[3]])
    assert not torch.equal(embeds[0, 0], table[lively.ids.memory_pad])


def test_forced_memories(lively: Backbone) -> None:
    script = {(EVERY_ROW, 1): lively.ids.recall}
    _, mechanism = recall_at(lively, random_bank(lively), script, [PROMPT, [60], [61]], force_memory=[6, 0, 3])
    assert [e.memory_index for (e,) in mechanism.events] == [6, 0, 3]


# Choosing, on states made by hand: memory k has the unit vector e_k as its key.


def axes(width: int, count: int = 4) -> MemoryBank:
    bank = MemoryBank(torch.zeros(width), 1.0, "")
    keys = torch.eye(width)[:count]
    bank.write([f"m{i}" for i in range(count)], [f"text {i}" for i in range(count)], keys, list(keys[:, None]))
    return bank


def choices(
    backbone: Backbone, config: AutoregressiveRecall, state: list[float], times: int = 1, scale: float = 1.0
) -> list[int]:
    """Which memories are chosen, one <recall> after the other in one answer."""
    mechanism = RecallMechanism(axes(8), backbone, config, scale)
    mechanism.begin(1, Clock(torch.device("cpu"), enabled=False))
    hidden = torch.tensor([state + [0.0] * (8 - len(state))])
    for _ in range(times):
        (given,) = mechanism.give([0], hidden)
        assert list(given.token_ids) == [backbone.ids.memory_pad]
    return [event.memory_index for event in mechanism.events[0]]


def test_top_k_1_is_argmax(pristine: Backbone) -> None:
    state = [0.5, 0.52, 0.51, 0.5]
    sampled = AutoregressiveRecall(autorecall_use_sampling=True, temperature=5.0, top_k=1, top_p=1.0)
    assert choices(pristine, sampled, state, times=20) == [1] * 20
    assert choices(pristine, AutoregressiveRecall(), state) == [1]


def test_the_warpers_bound_what_is_sampled(pristine: Backbone) -> None:
    state = [0.4, 0.6, 0.5, 0.3]
    two = AutoregressiveRecall(autorecall_use_sampling=True, temperature=5.0, top_k=2, top_p=1.0)
    assert set(choices(pristine, two, state, times=60)) == {1, 2}
    nucleus = AutoregressiveRecall(autorecall_use_sampling=True, temperature=1.0, top_k=10, top_p=0.5)
    assert set(choices(pristine, nucleus, state, times=60, scale=100.0)) == {1}
    torch.manual_seed(0)
    free = AutoregressiveRecall(autorecall_use_sampling=True, temperature=5.0, top_k=10, top_p=1.0)
    assert set(choices(pristine, free, state, times=100)) == {0, 1, 2, 3}


def test_a_penalty_lowers_what_was_recalled(pristine: Backbone) -> None:
    state = [0.9, 0.8, 0.1, 0.0]
    assert choices(pristine, AutoregressiveRecall(), state, times=3) == [0, 0, 0]
    penalty = AutoregressiveRecall(repetition_penalty=2.0)
    assert choices(pristine, penalty, state, times=3) == [0, 1, 0]
    assert choices(pristine, penalty, [-0.1, -0.3, -0.5, -0.9], times=2) == [0, 0]  # -0.2 is still the best
    assert choices(pristine, AutoregressiveRecall(repetition_penalty=4.0), [-0.1, -0.3, -0.5, -0.9], 2) == [0, 1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"top_k": 0}, "top_k=0 leaves no memory"),
        ({"temperature": 0.0}, "temperature=0.0 divides logits"),
        ({"repetition_penalty": -1.0}, "repetition_penalty=-1.0 divides logits"),
        ({"top_p": 0.0}, "top_p=0.0 is no share"),
        ({"top_p": 1.1}, "top_p=1.1 is no share"),
    ],
)
def test_settings_that_choose_nothing_are_refused_before_a_fit(values: dict[str, float], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        AutoregressiveRecall(**values)  # type: ignore[arg-type]


# What the method makes of it.


def test_memory_logits_are_raw_cosines_where_the_recipe_is_literal(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And cosines / tau where it is calibrated: what warpers and a penalty see."""
    scales: list[float] = []

    class Noted(RecallMechanism):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            scales.append(self.logit_scale)

    monkeypatch.setattr("methods.recall.method.RecallMechanism", Noted)
    for method in (RecallMethod(MethodSetup(lively)), SpecRecallMethod(MethodSetup(lively))):
        method.bank = random_bank(lively)
        method.answer(Context((Message("user", "What?"),), 2))
    assert scales == [20.0, 1.0]


# A memory's vectors in one forward, and its text as a draft.


def parrot_script(backbone: Backbone, text: str) -> list[int]:
    return [*encode_text(backbone.tokenizer, text), backbone.ids.recall_end]


@pytest.mark.parametrize("num_vectors", [1, 3])
def test_a_memory_in_one_forward_is_the_same_as_a_token_at_a_time(lively: Backbone, num_vectors: int) -> None:
    """Rows with a recall each, of which the last has other text in its way: the random model recites nothing."""
    bank = random_bank(lively, num_vectors=num_vectors)
    prompts = [[*PROMPT, lively.ids.recall], [60, 61, lively.ids.recall], [7, lively.ids.recall]]

    def said() -> tuple[list[tuple[int, ...]], list[list[int]], int]:
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
        outputs = generate(lively, prompts, NEW, mechanism=mechanism)
        chosen = [[event.memory_index for event in row] for row in mechanism.events]
        return [output.token_ids for output in outputs], chosen, outputs[0].forwards

    several = said()
    with serially():
        serial = said()
    assert several[:2] == serial[:2]
    assert serial[2] - several[2] == num_vectors - 1
    for prompt, tokens in zip(prompts, several[0], strict=True):
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
        assert generate(lively, [prompt], NEW, mechanism=mechanism)[0].token_ids == tokens


def test_a_text_that_the_model_would_say_takes_one_forward(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model says behind the vectors is found out first; as the draft it comes at once."""
    bank = random_bank(lively, size=1, num_vectors=2)

    def output() -> Generated:
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
        return generate(lively, [[*PROMPT, lively.ids.recall]], 40, mechanism=mechanism)[0]

    before, count = output(), 12
    draft = [*before.token_ids[2 : 2 + count], 5, 5, 5]
    given = RecallMechanism._given
    monkeypatch.setattr(RecallMechanism, "_given", lambda self, index: replace(given(self, index), draft=draft))
    drafted = output()
    assert drafted.token_ids == before.token_ids
    assert drafted.forwards == before.forwards - count
    assert drafted.kv_bytes == before.kv_bytes


def test_a_memory_without_vectors_is_given_as_its_text(lively: Backbone) -> None:
    bank = random_bank(lively)
    bank.write(["m2"], ["Oak."], bank.keys_MD[[2]], [torch.empty(0, lively.facts.hidden_size)])
    prompt = [*PROMPT, lively.ids.recall]
    mechanism = RecallMechanism(bank, lively, AutoregressiveRecall(), force_memory=[2])
    (output,) = generate(lively, [prompt], NEW, mechanism=mechanism)
    text = parrot_script(lively, "Oak.")
    assert list(output.token_ids[: len(text)]) == text
    plain = generate(lively, [[*prompt, *text]], NEW - len(text))[0]
    assert output.token_ids[len(text) :] == plain.token_ids


def answer_of(backbone: Backbone, bank: MemoryBank, *pieces: str | int, max_new_tokens: int = 64) -> Answer:
    method = RecallMethod(MethodSetup(backbone))
    method.bank = bank
    with scripted(backbone, says(backbone, *pieces)), serially():
        return method.answer(Context((Message("user", "What about Cork?"),), max_new_tokens))


def test_the_answer_holds_what_was_recalled(lively: Backbone) -> None:
    ids = lively.ids
    bank = random_bank(lively)
    answer = answer_of(
        lively,
        bank,
        ids.think,
        "\n",
        ids.recall,
        "?",
        "The rule.",
        ids.recall_end,
        "So.\n",
        ids.think_end,
        "\n7",
        ids.eos,
    )
    assert answer.raw == "<think>\n<recall><|memory_pad|>The rule.</recall>So.\n</think>\n7<|im_end|>"
    assert answer.think == "The rule.So."
    assert answer.final == "7"
    assert answer.finished
    (lookup,) = answer.lookups
    assert lookup.text == "The rule."
    assert lookup.candidates[0] == (lookup.memory_id, lookup.score)
    assert {i for i, _ in lookup.candidates} == set(bank.ids)
    scores = [score for _, score in lookup.candidates]
    assert scores == sorted(scores, reverse=True)


def test_where_the_time_went(lively: Backbone) -> None:
    ids = lively.ids
    usage = answer_of(
        lively, random_bank(lively), ids.think, ids.recall, "?", "abc", ids.recall_end, ids.think_end, "7", ids.eos
    ).usage
    assert usage.new_tokens == 10
    assert {"prefill", "memory_head", "recalled_text", "rest"} <= set(usage.stage_s)
    assert 0 < usage.ttft_s < usage.ttfa_s < usage.total_s
    assert sum(usage.stage_s.values()) == pytest.approx(usage.total_s)


def test_two_recalls_keep_their_order(lively: Backbone) -> None:
    ids = lively.ids
    recalls = [ids.recall, "?", "one", ids.recall_end, ids.recall, "?", "two", ids.recall_end]
    answer = answer_of(lively, random_bank(lively), ids.think, *recalls, ids.think_end, "7", ids.eos)
    assert [lookup.text for lookup in answer.lookups] == ["one", "two"]


@pytest.mark.parametrize("cap", [3, 4])
def test_a_recall_cut_by_the_cap_has_no_text(lively: Backbone, cap: int) -> None:
    ids = lively.ids
    answer = answer_of(lively, random_bank(lively), ids.think, "\n", ids.recall, "?", "one", max_new_tokens=cap)
    assert not answer.finished
    assert [lookup.text for lookup in answer.lookups] == ([""] if cap == 4 else [])
