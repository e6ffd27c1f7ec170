"""The trigger's margin says what greedy decoding does, and where a bias on <recall> tips it over."""

from __future__ import annotations

import pytest
from methods.recall.trigger import recall_margins
from model_script import random_bank

from methods.backbone import Backbone
from methods.base import Context
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from methods.recall.generation import AutoregressiveRecall
from methods.recall.method import RecallConfig, RecallMethod
from methods.setup import MethodSetup
from tasks.base import Message

ASKED = [(Message("user", text),) for text in ("Where?", "What is the rule on skates in Oulu?", "Hello there!")]


def first_in_think(backbone: Backbone, messages: tuple[Message, ...], bias: float) -> int:
    ids = backbone.ids
    prompt = encode_prompt(backbone, messages) + encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    (output,) = generate(backbone, [prompt], 1, token_bias={ids.recall: bias} if bias else None)
    return output.token_ids[0]


def test_a_bias_beyond_the_margin_and_no_less_makes_it_recall(lively: Backbone) -> None:
    margins = recall_margins(lively, ASKED).tolist()
    for messages, margin in zip(ASKED, margins, strict=True):
        assert (first_in_think(lively, messages, 0.0) == lively.ids.recall) == (margin > 0)
        assert first_in_think(lively, messages, -margin + 0.01) == lively.ids.recall
        assert first_in_think(lively, messages, -margin - 0.01) != lively.ids.recall


def test_padding_changes_no_margin(lively: Backbone) -> None:
    together = recall_margins(lively, ASKED).tolist()
    assert [recall_margins(lively, [messages]).item() for messages in ASKED] == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize(("bias", "recalls"), [(1e4, True), (-1e4, False)])
def test_the_method_decodes_with_its_bias(lively: Backbone, bias: float, recalls: bool) -> None:
    config = RecallConfig(recall=AutoregressiveRecall(recall_bias=bias))
    method = RecallMethod(MethodSetup(lively), config)
    method.bank = random_bank(lively)
    assert bool(method.answer(Context(ASKED[0], 6)).lookups) == recalls


def test_with_recall_off_a_bias_changes_nothing(lively: Backbone) -> None:
    """The output is stock `generate`'s, in which <recall> is a token like others."""
    said = []
    for bias in (0.0, 1e4):
        method = RecallMethod(MethodSetup(lively), RecallConfig(recall=AutoregressiveRecall(recall_bias=bias)))
        method.bank = random_bank(lively)
        method.enable_recall(False)
        said.append(method.answer(Context(ASKED[0], 6)).raw)
    assert said[0] == said[1]
