"""Our loop is stock `generate` token for token, and one row of a batch never touches another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from model_script import random_bank, scripted
from transformers import StoppingCriteriaList

from methods.backbone import Backbone
from methods.chat import encode_prompt
from methods.decode import Clock, Generated, Sampling, decode_loop, generate
from methods.prefixes import Prefixes, reusing
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
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
    return replace(backbone, ids=replace(backbone.ids, eos=token))


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


class TooLow:
    """A stopping criterion row by row, of a reader's own: no stop token, so no padding either."""

    def __call__(self, input_ids: torch.Tensor, _scores: object, **_options: object) -> torch.Tensor:
        return input_ids[:, -1] % 3 == 0


@pytest.mark.parametrize("options", [{}, {"eos_token_id": 2, "pad_token_id": 2}])
def test_other_criteria_stop_rows_as_in_stock(lively: Backbone, options: dict[str, int]) -> None:
    """Without a stop token stock goes on with every row, and knows no padding."""
    model = lively.model
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    criteria = StoppingCriteriaList([TooLow()])
    ids = torch.tensor(PROMPTS[3])[None] + torch.arange(3)[:, None]
    asked = {"input_ids": ids, "max_new_tokens": NEW, "do_sample": False, "stopping_criteria": criteria, **options}
    ours = model.generate(**asked, custom_generate=decode_loop)
    assert torch.equal(ours, model.generate(**asked))
    assert len(set(map(tuple, ours.tolist()))) == 3


@pytest.mark.parametrize("reused", [False, True])
def test_a_row_recalls_as_ever_once_another_has_left(lively: Backbone, reused: bool) -> None:
    """Of rows 0, 1 and 2 row 0 stops at once; row 2, then the second that is computed, recalls two vectors."""
    bank, recall = random_bank(lively), AutoregressiveRecall()
    bank.take_values(torch.stack([bank.values_MD, bank.values_MD.flip(0)], dim=1))
    script = {(1, 4): lively.ids.recall}

    def said(prompts: Sequence[Sequence[int]], script: dict[tuple[int, int], int]) -> tuple[object, object]:
        interceptor = RecallInterceptor(bank, lively.ids, recall)
        with scripted(lively, script), reusing(Prefixes()) if reused else nullcontext():
            outputs = generate(lively, prompts, NEW, interceptor=interceptor)
        events = [[event.memory_index for event in row] for row in interceptor.events]
        return tokens(outputs)[-2:], events[-2:]

    prompts = [PROMPTS[0], PROMPTS[3], PROMPTS[2]]
    apart = said(prompts[1:], script)
    assert said(prompts, {(0, 1): lively.ids.eos, **script}) == apart
    assert apart[1] == [[], [apart[1][1][0]]]


def test_rows_leave_running_states_too() -> None:
    """Convolution states have no keys; the rows that go on keep their own."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = Lfm2ForCausalLM(Lfm2Config(**sizes, **heads, layer_types=["conv", "full_attention"])).eval()
    ids = torch.randint(3, 64, (3, 6))
    alone = model.generate(input_ids=ids[1:2], max_new_tokens=9, do_sample=False, pad_token_id=0)
    stop = int(model.generate(input_ids=ids[:1], max_new_tokens=1, do_sample=False, pad_token_id=0)[0, -1])
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "eos_token_id": stop}
    ours = model.generate(input_ids=ids, custom_generate=decode_loop, **options)
    assert torch.equal(ours, model.generate(input_ids=ids, **options))
    assert stop not in alone[0, 6:] and torch.equal(ours[1], alone[0])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(do_sample=True),
        Sampling(do_sample=True, temperature=1.7, top_k=40, top_p=0.7),
        Sampling(do_sample=True, repetition_penalty=1.5),
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
        repetition_penalty=sampling.repetition_penalty,
    )
    assert ours == theirs
    torch.manual_seed(12)
    assert tokens(generate(lively, PROMPTS, NEW, sampling=sampling)) != ours


def test_greedy_repetition_penalty_is_stock(lively: Backbone) -> None:
    ours = tokens(generate(lively, PROMPTS, NEW, sampling=Sampling(repetition_penalty=3.0)))
    assert ours == stock(lively, PROMPTS, repetition_penalty=3.0)
    assert ours != stock(lively, PROMPTS)


def test_the_memory_pad_is_never_chosen_freely(lively: Backbone) -> None:
    """It stands where it is forced and nowhere else, however much the model would like it."""
    with scripted(lively, {(0, 0): lively.ids.memory_pad}):
        (output,) = generate(lively, PROMPTS[:1], 1)
    assert output.token_ids[0] != lively.ids.memory_pad


def test_an_interceptor_that_never_acts_changes_nothing(lively: Backbone) -> None:
    interceptor = RecallInterceptor(random_bank(lively), lively.ids, AutoregressiveRecall())
    ours = tokens(generate(lively, PROMPTS, NEW, interceptor=interceptor))
    assert not any(lively.ids.recall in row for row in ours)
    assert ours == stock(lively, PROMPTS)
    assert interceptor.events == [[], [], [], []]


@pytest.mark.parametrize("off", ["gate", "empty bank"])
def test_switched_off_recall_is_stock_even_after_recall(lively: Backbone, off: str) -> None:
    bank = random_bank(lively, size=0 if off == "empty bank" else 7)
    script = {(0, 2): lively.ids.recall, (3, 5): lively.ids.recall}
    interceptor = RecallInterceptor(bank, lively.ids, AutoregressiveRecall(enabled=off != "gate"))
    with scripted(lively, script):
        ours = tokens(generate(lively, PROMPTS, NEW, interceptor=interceptor))
    with scripted(lively, script):
        assert ours == stock(lively, PROMPTS)
    assert ours[0][2] == ours[3][5] == lively.ids.recall
    assert interceptor.events == [[], [], [], []]


def test_a_row_of_a_batch_is_what_it_is_alone(lively: Backbone) -> None:
    prompts = [*PROMPTS, encode_prompt(lively, [Message("user", "How much is paid for meals in Cork?")])]
    assert tokens(generate(lively, prompts, NEW)) == [
        tokens(generate(lively, [prompt], NEW))[0] for prompt in prompts
    ]


def test_every_step_is_streamed(lively: Backbone) -> None:
    steps: list[list[int]] = []
    outputs = generate(lively, PROMPTS, NEW, on_token=lambda ids: steps.append(ids.tolist()))
    assert [tuple(row) for row in zip(*steps, strict=True)] == tokens(outputs)


def test_a_row_that_has_stopped_streams_padding(lively: Backbone) -> None:
    stopping = with_stop(lively, tokens(generate(lively, PROMPTS, NEW))[0][4])
    steps: list[list[int]] = []
    generate(stopping, PROMPTS, NEW, on_token=lambda ids: steps.append(ids.tolist()))
    assert len(steps) == NEW
    assert {row[0] for row in steps[5:]} == {lively.tokenizer.pad_token_id}


class Kept:
    """A streamer of the library's shape that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.num_ends = 0

    def put(self, value: torch.Tensor) -> None:
        self.values.append(value)

    def end(self) -> None:
        self.num_ends += 1


def streamed(backbone: Backbone, **options: object) -> torch.Tensor:
    return backbone.model.generate(
        input_ids=torch.tensor([[5, 6], [7, 8]]),
        max_new_tokens=5,
        pad_token_id=2,
        eos_token_id=2,
        custom_generate=decode_loop,
        **options,
    )


def test_a_streamer_of_the_library_gets_the_prompt_and_every_step(lively: Backbone) -> None:
    streamer = Kept()
    output = streamed(lively, token_streamer=streamer)
    prompt, *steps = streamer.values
    assert torch.equal(torch.cat([prompt, torch.stack(steps, dim=1)], dim=1), output)
    assert len(steps) == 5
    assert streamer.num_ends == 1


def test_it_ends_after_an_error(lively: Backbone) -> None:
    streamer = Kept()
    with pytest.raises(RuntimeError, match="stop here"):
        streamed(lively, token_streamer=streamer, on_token=_stop)
    assert streamer.num_ends == 1


def _stop(_ids: torch.Tensor) -> None:
    raise RuntimeError("stop here")


def test_the_library_hands_its_own_streamer_argument_to_no_callable(lively: Backbone) -> None:
    """Once it does, `token_streamer` is not needed any more."""
    streamer = Kept()
    streamed(lively, streamer=streamer)
    assert (len(streamer.values), streamer.num_ends) == (1, 0)


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
