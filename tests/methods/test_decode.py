"""Our loop is stock `generate` token for token, and one row of a batch never touches another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from model_script import random_bank, scripted

from methods.backbone import Backbone
from methods.chat import encode_prompt
from methods.decode import Clock, Generated, Sampling, generate, listening, quoting, serially
from methods.prefixes import Prefixes, reusing
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from tasks.base import Message

NEW = 24
PROMPTS = [[3, 4, 5], [6], [100, 9, 33, 7, 8, 41, 90], list(range(20, 60))]


def stock(
    backbone: Backbone, prompts: Sequence[Sequence[int]], new: int = NEW, **settings: object
) -> list[tuple[int, ...]]:
    """The library's own greedy or sampled tokens, up to and including the stop token."""
    pad, eos = backbone.tokenizer.pad_token_id, backbone.ids.eos
    width = max(map(len, prompts))
    output = backbone.model.generate(
        input_ids=torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        max_new_tokens=new,
        eos_token_id=eos,
        pad_token_id=pad,
        suppress_tokens=[backbone.ids.memory_pad],
        **{"do_sample": False, **settings},
    )
    rows = [row[width:].tolist() for row in output]
    return [tuple(row[: row.index(eos) + 1] if eos in row else row) for row in rows]


def tokens(outputs: Sequence[Generated]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


def with_stop(backbone: Backbone, token: int) -> Backbone:
    return replace(
        backbone,
        ids=replace(backbone.ids, eos=token),
        facts=replace(backbone.facts, turn_end=token, stop_ids=(token,)),
    )


def test_the_model_of_these_tests_says_more_than_one_thing(lively: Backbone) -> None:
    """A model that repeats itself would pass all of them."""
    first, second, *_ = tokens(generate(lively, PROMPTS, NEW))
    assert first != second
    assert len(set(first)) > 4


def test_greedy_is_stock_greedy(lively: Backbone) -> None:
    assert tokens(generate(lively, PROMPTS, NEW)) == stock(lively, PROMPTS)


def test_rows_stop_one_by_one_as_in_stock(lively: Backbone) -> None:
    stop = tokens(generate(lively, PROMPTS, NEW))[0][4]
    stopping = with_stop(lively, stop)
    outputs = generate(stopping, PROMPTS, NEW)
    lengths = {len(output.token_ids) for output in outputs}
    assert tokens(outputs) == stock(stopping, PROMPTS)
    assert 5 in lengths
    assert NEW in lengths
    assert [output.finished for output in outputs] == [output.token_ids[-1] == stop for output in outputs]


def test_nothing_is_computed_for_a_row_that_has_stopped(lively: Backbone) -> None:
    stop = tokens(generate(lively, PROMPTS, NEW))[0][4]
    stopping = with_stop(lively, stop)
    computed: list[int] = []
    layer = lively.model.get_output_embeddings()
    handle = layer.register_forward_hook(lambda _module, args, _out: computed.append(len(args[0])))
    outputs = generate(stopping, PROMPTS, NEW)
    handle.remove()
    lengths = [len(output.token_ids) for output in outputs]
    assert min(lengths) < max(lengths)
    assert computed == [sum(length > step for length in lengths) for step in range(max(lengths))]


@pytest.mark.parametrize("reused", [False, True])
def test_a_row_recalls_as_ever_once_another_has_left(lively: Backbone, reused: bool) -> None:
    """Of rows 0, 1 and 2 row 0 stops at once; row 2, then the second that is computed, recalls two vectors."""
    bank = random_bank(lively, num_vectors=2)
    script = {(1, 4): lively.ids.recall}

    def said(prompts: Sequence[Sequence[int]], script: dict[tuple[int, int], int]) -> tuple[object, object]:
        mechanism = RecallMechanism(bank, lively, AutoregressiveRecall())
        with scripted(lively, script), reusing(Prefixes()) if reused else nullcontext(), serially():
            outputs = generate(lively, prompts, NEW, mechanism=mechanism)
        events = [[event.memory_index for event in row] for row in mechanism.events]
        return tokens(outputs)[-2:], events[-2:]

    prompts = [PROMPTS[0], PROMPTS[3], PROMPTS[2]]
    apart = said(prompts[1:], script)
    assert said(prompts, {(0, 1): lively.ids.eos, **script}) == apart
    assert apart[1] == [[], [apart[1][1][0]]]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(do_sample=True),
        Sampling(do_sample=True, temperature=1.7, top_k=40, top_p=0.7),
    ],
)
def test_sampling_is_stock_sampling_with_the_same_seed(lively: Backbone, sampling: Sampling) -> None:
    torch.manual_seed(11)
    ours = tokens(generate(lively, PROMPTS, NEW, sampling=sampling))
    torch.manual_seed(11)
    theirs = stock(
        lively,
        PROMPTS,
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    assert ours == theirs
    torch.manual_seed(12)
    assert tokens(generate(lively, PROMPTS, NEW, sampling=sampling)) != ours


def test_the_memory_pad_is_never_chosen_freely(lively: Backbone) -> None:
    """It stands where it is forced and nowhere else, however much the model would like it."""
    with scripted(lively, {(0, 0): lively.ids.memory_pad}):
        (output,) = generate(lively, PROMPTS[:1], 1)
    assert output.token_ids[0] != lively.ids.memory_pad


def test_a_mechanism_that_never_acts_changes_nothing(lively: Backbone) -> None:
    mechanism = RecallMechanism(random_bank(lively), lively, AutoregressiveRecall())
    ours = tokens(generate(lively, PROMPTS, NEW, mechanism=mechanism))
    assert not any(lively.ids.recall in row for row in ours)
    assert ours == stock(lively, PROMPTS)
    assert mechanism.events == [[], [], [], []]


@pytest.mark.parametrize("off", ["gate", "empty bank"])
def test_switched_off_recall_is_stock_even_after_recall(lively: Backbone, off: str) -> None:
    bank = random_bank(lively, size=0 if off == "empty bank" else 7)
    script = {(0, 2): lively.ids.recall, (3, 5): lively.ids.recall}
    mechanism = RecallMechanism(bank, lively, AutoregressiveRecall(enabled=off != "gate"))
    with scripted(lively, script):
        ours = tokens(generate(lively, PROMPTS, NEW, mechanism=mechanism))
    with scripted(lively, script):
        assert ours == stock(lively, PROMPTS)
    assert ours[0][2] == ours[3][5] == lively.ids.recall
    assert mechanism.events == [[], [], [], []]


def test_a_row_of_a_batch_is_what_it_is_alone(lively: Backbone) -> None:
    prompts = [*PROMPTS, encode_prompt(lively, [Message("user", "How much is paid for meals in Cork?")])]
    assert tokens(generate(lively, prompts, NEW)) == [
        tokens(generate(lively, [prompt], NEW))[0] for prompt in prompts
    ]


def test_every_token_of_a_single_answer_is_streamed(lively: Backbone) -> None:
    """Those that a draft brought too, each once and in order."""
    (output,) = generate(lively, PROMPTS[:1], NEW)
    streamed: list[int] = []
    with listening(streamed.append):
        again = generate(lively, PROMPTS[:1], NEW, drafters=[quoting([], [output.token_ids[:9]])])
    assert tuple(streamed) == output.token_ids == again[0].token_ids


# --- drafts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reused", [False, True])
def test_drafts_change_the_number_of_forwards_and_no_token(lively: Backbone, reused: bool) -> None:
    """Drafts that are right, wrong from the middle on, wrong at once, and none."""
    serial = generate(lively, PROMPTS, NEW)
    said = tokens(serial)
    drafts = [[said[0][:12]], [(*said[1][:5], 9, 9, 9, 9)], [(said[2][0], 7, 7, 7)], []]
    drafters = [quoting([], texts) for texts in drafts]
    with reusing(Prefixes()) if reused else nullcontext():
        together = generate(lively, PROMPTS, NEW, drafters=drafters)
        quicker = generate(lively, PROMPTS, NEW, drafters=[quoting([], [row[:12]]) for row in said])
    assert tokens(together) == tokens(quicker) == said
    assert quicker[0].forwards == serial[0].forwards - 11
    alone = [generate(lively, [p], NEW, drafters=[d])[0] for p, d in zip(PROMPTS, drafters, strict=True)]
    assert tokens(alone) == said
    assert [output.forwards for output in alone] == [NEW - 11, NEW - 4, NEW, NEW]


def test_a_refused_draft_leaves_no_trace_in_the_cache(lively: Backbone) -> None:
    (plain,) = generate(lively, PROMPTS[:1], NEW)
    wrong = quoting([], [(*plain.token_ids[:5], 9, 9, 9, 9)])
    assert generate(lively, PROMPTS[:1], NEW, drafters=[wrong])[0].kv_bytes == plain.kv_bytes


def test_a_draft_never_says_more_than_an_answer_may(lively: Backbone) -> None:
    (whole,) = generate(lively, PROMPTS[:1], NEW)
    for cap in (1, 2, 7, 8):
        (cut,) = generate(lively, PROMPTS[:1], cap, drafters=[quoting([], [whole.token_ids])])
        assert cut.token_ids == whole.token_ids[:cap]


def test_an_answer_ends_at_a_stop_token_inside_a_draft(lively: Backbone) -> None:
    """The place after it is in the draft's forward too, and would have been the next token."""
    (whole,) = generate(lively, PROMPTS[:1], NEW)
    last = next(n for n in range(4, NEW) if whole.token_ids[n] not in whole.token_ids[:n])
    stopping = replace(lively, facts=replace(lively.facts, stop_ids=(whole.token_ids[last],)))
    (plain,) = generate(stopping, PROMPTS[:1], NEW)
    for tokens_ahead in (last, last + 1, last + 3):
        (drafted,) = generate(stopping, PROMPTS[:1], NEW, drafters=[quoting([], [whole.token_ids[:tokens_ahead]])])
        assert drafted.token_ids == plain.token_ids == whole.token_ids[: last + 1]
        assert drafted.finished


def test_sampling_and_a_cache_that_forgets_take_no_drafts(lively: Backbone) -> None:
    torch.manual_seed(5)
    (plain,) = generate(lively, PROMPTS[:1], NEW, sampling=Sampling(do_sample=True))
    torch.manual_seed(5)
    drafters = [quoting([], [plain.token_ids])]
    (drafted,) = generate(lively, PROMPTS[:1], NEW, sampling=Sampling(do_sample=True), drafters=drafters)
    assert (drafted.token_ids, drafted.forwards) == (plain.token_ids, NEW)
    sliding = sliding_window(lively)
    (plain,) = generate(sliding, PROMPTS[3:], NEW)
    assert tokens([plain]) == stock(sliding, PROMPTS[3:])
    (drafted,) = generate(sliding, PROMPTS[3:], NEW, drafters=[quoting([], [plain.token_ids])])
    assert (drafted.token_ids, drafted.forwards) == (plain.token_ids, NEW)


def sliding_window(backbone: Backbone) -> Backbone:
    """The same tokenizer before a Mistral that sees the last eight tokens."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    sizes = {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8}
    return replace(backbone, model=MistralForCausalLM(MistralConfig(**sizes, **heads)).eval())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([1, 2], [5, 6, 7]),  # the first text that goes on from here
        ([1, 2, 5], [6, 7]),
        ([1, 2, 8], [9]),  # another begins so
        ([1, 2, 5, 6, 7], []),  # all is said
        ([1, 3], ()),
        ([1], [2, 5, 6, 7]),
    ],
)
def test_a_quotation_is_drafted_as_far_as_it_fits(said: list[int], expected: Sequence[int]) -> None:
    assert quoting([1, 2], [[5, 6, 7], [8, 9]])(said) == expected


def test_a_book_is_quoted_once_it_is_clear_what() -> None:
    drafter = quoting([1, 2], [[5, 6, 7], [8, 9, 3]], least=2)
    assert [drafter([1, 2, *said]) for said in ([], [8], [8, 9])] == [(), (), [3]]


def test_times_and_bytes(lively: Backbone) -> None:
    output = generate(lively, PROMPTS[:1], NEW, clock=Clock(lively.device, enabled=True))[0]
    assert len(output.token_s) == NEW
    assert list(output.token_s) == sorted(output.token_s)
    assert 0 < output.stage_s["prefill"] <= output.token_s[0]
    config = lively.model.config
    width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    fed = len(PROMPTS[0]) + NEW - 1  # the last token is never fed
    assert output.kv_bytes == 2 * config.num_hidden_layers * width * fed * 4
    assert generate(lively, PROMPTS[:1], NEW)[0].token_s == ()
