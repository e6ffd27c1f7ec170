"""What is reused of earlier prompts saves work and changes no token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_script import random_bank, scripted

from methods import prefixes as prefixes_module
from methods.backbone import Backbone
from methods.decode import Generated, generate
from methods.prefixes import MIN_SHARED, Prefixes, common_length, lay_out, reusing
from methods.recall.generation import AutoregressiveRecall, RecallMechanism

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


@contextmanager
def fed(backbone: Backbone) -> Iterator[list[tuple[int, ...]]]:
    """(rows, tokens) of every forward in the block."""
    shapes: list[tuple[int, ...]] = []
    layer = backbone.model.get_input_embeddings()
    handle = layer.register_forward_hook(lambda _module, args, _out: shapes.append(tuple(args[0].shape)))
    try:
        yield shapes
    finally:
        handle.remove()


def test_a_dialogue_that_goes_on_says_what_it_says_afresh(lively: Backbone) -> None:
    afresh = tokens(generate(lively, FIRST, NEW)), tokens(generate(lively, SECOND, NEW))
    with reusing(Prefixes()):
        first, second = generate(lively, FIRST, NEW), generate(lively, SECOND, NEW)
    assert (tokens(first), tokens(second)) == afresh
    assert [output.prompt_tokens for output in second] == [len(prompt) for prompt in SECOND]


ALL_OF_FIRST = [(2, 8), (1, 19), (3, 1)]  # with at most 20 tokens a forward: all but each last token, then these


@pytest.mark.parametrize("max_kept_bytes", [2**31, 0])
def test_it_computes_what_is_new_in_rows_of_like_length(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch, max_kept_bytes: int
) -> None:
    monkeypatch.setattr(prefixes_module, "MAX_TOKENS", 20)
    monkeypatch.setattr(prefixes_module, "MAX_KEPT_BYTES", max_kept_bytes)
    with reusing(Prefixes()):
        with fed(lively) as first:
            generate(lively, FIRST, 1)
        with fed(lively) as second:
            generate(lively, SECOND[:2], 1)
    assert first == ALL_OF_FIRST
    rest = [(1, 7), (1, 12)] if max_kept_bytes else [(1, 20), (1, 26)]
    assert second == [*rest, (2, 1)]


def test_recalls_happen_where_they_happened(lively: Backbone) -> None:
    """Vectors are fed behind the prompt, so none of them is in what is kept."""
    script = {(0, 2): lively.ids.recall, (2, 4): lively.ids.recall}

    def recalled() -> tuple[list[tuple[int, ...]], list[list[int]]]:
        mechanism = RecallMechanism(random_bank(lively), lively, AutoregressiveRecall())
        with scripted(lively, script):
            outputs = generate(lively, SECOND, NEW, mechanism=mechanism)
        return tokens(outputs), [[event.memory_index for event in row] for row in mechanism.events]

    afresh = recalled()
    with reusing(Prefixes()):
        with scripted(lively, script):
            mechanism = RecallMechanism(random_bank(lively), lively, AutoregressiveRecall())
            generate(lively, FIRST, NEW, mechanism=mechanism)
        assert recalled() == afresh
    assert [len(row) for row in afresh[1]] == [1, 0, 1, 0]


def test_the_same_prompt_again_computes_its_last_token_alone(lively: Backbone) -> None:
    """Its logits decide the first new one."""
    with reusing(Prefixes()):
        once = generate(lively, FIRST, 1)
        with fed(lively) as shapes:
            again = generate(lively, FIRST, 1)
    assert tokens(once) == tokens(again)
    assert shapes == [(3, 1)]


@pytest.mark.parametrize(("length", "shared"), [(MIN_SHARED, True), (MIN_SHARED - 1, False)])
def test_what_a_whole_batch_shares_is_computed_once(lively: Backbone, length: int, shared: bool) -> None:
    book = drawn(8, length)
    prompts = [book + drawn(seed, 3 + seed) for seed in range(3)]
    afresh = tokens(generate(lively, prompts, NEW))
    with reusing(Prefixes()), fed(lively) as shapes:
        assert tokens(generate(lively, prompts, NEW)) == afresh
    assert shapes[:2] == ([(1, length), (3, 4)] if shared else [(3, length + 4), (3, 1)])


def test_another_model_starts_anew(lively: Backbone, tiny: Backbone) -> None:
    with reusing(Prefixes()):
        generate(tiny, FIRST, 1)
        with fed(lively) as shapes:
            said = tokens(generate(lively, FIRST, NEW))
    assert shapes[:2] == [(3, 19), (3, 1)]
    assert said == tokens(generate(lively, FIRST, NEW))


def test_outside_the_block_nothing_is_kept(lively: Backbone) -> None:
    with reusing(Prefixes()):
        generate(lively, FIRST, 1)
    with fed(lively) as shapes:
        generate(lively, FIRST, 1)
    assert shapes == [(3, 20)]


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
    ids, mask = (laid_BT.tolist() for laid_BT in lay_out(prompts, starts, PAD, torch.device("cpu")))
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
