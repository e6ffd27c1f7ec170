"""FLOPs by hand; that torch counts the same: tests/eval/test_shapes.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planted import timed

from eval.cost import cost_metrics, flops, flops_of_lookup
from eval.flops import answer_flops, forward_flops, generation_flops, lookup_flops
from eval.shapes import Shapes, TransformerShape

SMOLLM2 = TransformerShape(  # SmolLM2-135M: 30 layers of 576, 9 heads of 64 (3 of keys), MLP 1536, 49,152 tokens
    block_weights=30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536),
    once_weights=49_152 * 576,
    attention_width=30 * 9 * 64,
    hidden_size=576,
)


def test_a_decoded_token_of_the_packaged_model() -> None:
    """As torch counted on the model: 269.0 M for weights, 35.5 M for attention with 512 tokens before it."""
    weights = forward_flops(SMOLLM2, 1, 0)
    attention = forward_flops(SMOLLM2, 1, 513) - weights
    assert round(weights / 1e6, 1) == 269.0
    assert round(attention / 1e6, 1) == 35.5
    assert generation_flops(SMOLLM2, 512, 2) - generation_flops(SMOLLM2, 512, 1) == weights + attention


def test_look_ups_by_hand() -> None:
    encoder = TransformerShape(block_weights=100, once_weights=7, attention_width=8, hidden_size=4)
    usage = replace(timed("rag", "q").usage, encoder_tokens=5, searched_vectors=3)
    record = replace(timed("rag", "q"), usage=usage, shapes=Shapes(SMOLLM2, encoder))
    by_hand = 2 * 576 * 3 + 2 * (100 * 5 + 7) + 4 * 8 * 5 * 5
    assert lookup_flops(record) == by_hand
    assert answer_flops(record) == by_hand + generation_flops(SMOLLM2, usage.prompt_tokens, usage.new_tokens)


def test_what_is_not_known_is_not_guessed() -> None:
    old = timed("recall", "q")
    no_encoder = replace(old, usage=replace(old.usage, encoder_tokens=5), shapes=Shapes(SMOLLM2))
    assert answer_flops(old) is answer_flops(no_encoder) is None
    assert flops([old]).reason == flops_of_lookup([old]).reason == "no record tells the sizes of a dense model"


def test_the_metric_is_a_mean_over_answers() -> None:
    records = [replace(timed("sft", f"q{n}", new_tokens=n), shapes=Shapes(SMOLLM2)) for n in (1, 2, 6)]
    found = cost_metrics(records, [])["cost/flops"]
    assert found.value == pytest.approx(sum(generation_flops(SMOLLM2, 50, n) for n in (1, 2, 6)) / 3)
    assert found.n == 3
