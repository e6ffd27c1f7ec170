"""What is reused of earlier prompts saves work and changes no token."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_script import random_bank, scripted

from methods import prefixes as prefixes_module
from methods.backbone import Backbone
from methods.decode import Generated, generate
from methods.prefixes import MIN_SHARED, Prefixes, common_length, lay_out, reusing
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor

NEW = 16
PAD = 0


def drawn(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(20, 110) for _ in range(count)]


FIRST = [drawn(1, 9), drawn(2, 3), drawn(3, 20)]
SECOND = [  # each goes on from its first prompt, in another order; one starts anew
    FIRST[2] + drawn(4, 7),
    FIRST[0] + drawn(5, 12),
    drawn(6, 5),
    FIRST[1] + drawn(7, 2),
]


def tokens(outputs: Sequence[Generated]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


def test_a_dialogue_that_goes_on_says_what_it_says_afresh(lively: Backbone) -> None:
    afresh = tokens(generate(lively, SECOND, NEW))
    prefixes = Prefixes()
    with reusing(prefixes):
        first = generate(lively, FIRST, NEW)
        second = generate(lively, SECOND, NEW)
    assert tokens(first) == tokens(generate(lively, FIRST, NEW))
    assert tokens(second) == afresh
    assert prefixes.num_reused == sum(len(prompt) - 1 for prompt in FIRST)
    assert [output.prompt_tokens for output in second] == [len(prompt) for prompt in SECOND]


def test_it_computes_what_is_new_in_rows_of_like_length(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes_module, "MAX_TOKENS", 20)
    shapes: list[tuple[int, ...]] = []
    layer = lively.model.get_input_embeddings()
    handle = layer.register_forward_hook(lambda _module, args, _out: shapes.append(tuple(args[0].shape)))
    with reusing(Prefixes()):
        generate(lively, FIRST, 1)
        generate(lively, [SECOND[0], SECOND[1]], 1)
    handle.remove()
    first = [(2, 8), (1, 19), (3, 1)]  # all but each last token, then these
    assert shapes == [*first, (1, 7), (1, 12), (2, 1)]


def test_recalls_happen_where_they_happened(lively: Backbone) -> None:
    """Vectors are fed behind the prompt, so none of them is in what is kept."""
    script = {(0, 2): lively.ids.recall, (2, 4): lively.ids.recall}

    def recalled() -> tuple[list[tuple[int, ...]], list[list[int]]]:
        interceptor = RecallInterceptor(random_bank(lively), lively.ids, AutoregressiveRecall())
        with scripted(lively, script):
            outputs = generate(lively, SECOND, NEW, interceptor=interceptor)
        return tokens(outputs), [[event.memory_index for event in row] for row in interceptor.events]

    afresh = recalled()
    with reusing(Prefixes()):
        with scripted(lively, script):
            interceptor = RecallInterceptor(random_bank(lively), lively.ids, AutoregressiveRecall())
            generate(lively, FIRST, NEW, interceptor=interceptor)
        assert recalled() == afresh
    assert [len(row) for row in afresh[1]] == [1, 0, 1, 0]


def test_the_same_prompt_again_computes_its_last_token_alone(lively: Backbone) -> None:
    """Its logits decide the first new one."""
    prefixes = Prefixes()
    with reusing(prefixes):
        once, again = generate(lively, FIRST, NEW), generate(lively, FIRST, NEW)
    assert tokens(once) == tokens(again)
    assert prefixes.num_reused == sum(len(prompt) - 1 for prompt in FIRST)


@pytest.mark.parametrize(("length", "reused"), [(MIN_SHARED, True), (MIN_SHARED - 1, False)])
def test_what_a_whole_batch_shares_is_computed_once(lively: Backbone, length: int, reused: bool) -> None:
    book = drawn(8, length)
    prompts = [book + drawn(seed, 3 + seed) for seed in range(3)]
    afresh = tokens(generate(lively, prompts, NEW))
    prefixes = Prefixes()
    with reusing(prefixes):
        assert tokens(generate(lively, prompts, NEW)) == afresh
    assert prefixes.num_reused == (2 * length if reused else 0)  # once it is computed


def test_another_model_starts_anew(lively: Backbone, tiny: Backbone) -> None:
    prefixes = Prefixes()
    with reusing(prefixes):
        generate(tiny, FIRST, 1)
        assert tokens(generate(lively, SECOND, NEW)) == tokens(generate(lively, SECOND, NEW))
        generate(tiny, FIRST, 1)
    assert prefixes.num_reused == sum(len(prompt) - 1 for prompt in SECOND)  # by the second pass of `lively` alone


def test_outside_the_block_nothing_is_kept(lively: Backbone) -> None:
    prefixes = Prefixes()
    with reusing(prefixes):
        pass
    generate(lively, FIRST, 1)
    generate(lively, FIRST, 1)
    assert prefixes.num_reused == 0


def test_a_window_that_slides_keeps_no_prompt() -> None:
    """Its cache lacks what has left the window."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    model = MistralForCausalLM(config).eval()
    ids = torch.randint(3, 32, (1, 2 * MIN_SHARED))
    assert Prefixes().compute(model, ids.tolist()) is None
    config.sliding_window = None
    assert Prefixes().compute(MistralForCausalLM(config).eval(), ids.tolist()) is not None


def test_a_prompt_of_one_token_has_nothing_to_reuse(lively: Backbone) -> None:
    prompts = [[7], FIRST[0]]
    afresh = tokens(generate(lively, prompts, NEW))
    with reusing(Prefixes()):
        assert tokens(generate(lively, prompts, NEW)) == afresh


@given(st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1), st.integers(0, 9)), min_size=1, max_size=4))
def test_a_layout_holds_each_prompt_in_order(rows: list[tuple[list[int], int]]) -> None:
    prompts = [prompt for prompt, _ in rows]
    starts = [min(start, len(prompt) - 1) for prompt, start in rows]
    ids, mask = lay_out(prompts, starts, PAD)
    width = max(starts)
    assert len({len(row) for row in [*ids, *mask]}) == 1
    for prompt, start, row, seen in zip(prompts, starts, ids, mask, strict=True):
        assert [token for token, one in zip(row, seen, strict=True) if one] == prompt
        assert {token for token, one in zip(row, seen, strict=True) if not one} <= {PAD}
        assert sum(seen[:width]) == start
        assert seen[-1] == 1  # the last token of every prompt stands where generation begins


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_length(first: list[int], second: list[int]) -> None:
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
