"""The sizes of a model give the FLOPs that torch counts while an answer is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from model_script import random_bank, says, scripted
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from eval.flops import answer_flops, forward_flops, lookup_flops
from eval.records import CostRecord
from eval.shapes import shape_of, shapes_of
from methods.backbone import Backbone
from methods.base import Answer, Context, Method
from methods.rag import ChromaRetriever
from methods.recall.method import RecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod
from tasks.base import Message

CONTEXT = Context((Message("user", "How much is paid per night in Lisbon?"),), 24)


class Counted:
    flops = 0


@contextmanager
def counted() -> Iterator[Counted]:
    """What torch counts; on a CPU it leaves SDPA out unless it is told."""
    aten = torch.ops.aten
    found = Counted()

    def attention(query: Any, key: Any, value: Any, *_args: Any, **_named: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    mapping = {aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield found
    by_op = counter.get_flop_counts()["Global"]
    assert by_op[aten._scaled_dot_product_flash_attention_for_cpu] > 0
    found.flops = counter.get_total_flops()


def record_of(method: Method, answer: Answer) -> CostRecord:
    return CostRecord(method.name, 0, "q", 0, answer.usage, 1, "rss", shapes=shapes_of(method))


def test_generation(lively: Backbone) -> None:
    method = SftMethod(MethodSetup(lively))
    with counted() as found:
        record = record_of(method, method.answer(CONTEXT))
    assert record.usage.new_tokens > 4
    assert answer_flops(record) == found.flops
    assert lookup_flops(record) == 0


def test_recall(lively: Backbone) -> None:
    ids = lively.ids
    recall = [ids.recall, "?", "one", ids.recall_end]
    method = RecallMethod(MethodSetup(lively))
    method.bank = random_bank(lively)
    script = says(lively, ids.think, *recall, *recall, ids.think_end, "7", ids.eos)
    with scripted(lively, script), counted() as found:
        answer = method.answer(CONTEXT)
    record = record_of(method, answer)
    assert len(answer.lookups) == 2
    assert answer_flops(record) == found.flops
    assert lookup_flops(record) == 2 * (2 * len(method.bank) * lively.facts.hidden_size)


class TinyEncoder(torch.nn.Sequential):
    """As a SentenceTransformer: its first module holds the transformer."""

    max_seq_length = 8

    def __init__(self, tokenizer: Any) -> None:
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        first = torch.nn.Module()
        first.auto_model = BertModel(BertConfig(vocab_size=300, **sizes)).eval()
        super().__init__(first)
        self.tokenizer = tokenizer


@pytest.mark.parametrize(("question", "read"), [("word", 4), ("many more words", 8)])
def test_encoder(pristine: Backbone, tmp_path: Any, question: str, read: int) -> None:
    encoder = TinyEncoder(pristine.tokenizer)
    retriever = ChromaRetriever(tmp_path, encoder)
    tokens = retriever.query_tokens([Message("user", question)])
    assert tokens == read
    with torch.no_grad(), counted() as found:
        encoder[0].auto_model(input_ids=torch.randint(300, (1, tokens)))
    shape = shape_of(retriever.encoder_model)
    assert shape is not None and shape.once_weights == 32 * 32  # the pooler's
    assert forward_flops(shape, tokens, tokens) == found.flops


@pytest.mark.parametrize(
    "change",
    [
        lambda config: setattr(config, "num_experts", 8),
        lambda config: setattr(config, "layer_types", ["full_attention", "linear_attention"]),
    ],
)
def test_a_model_that_is_not_dense_has_no_shape(tiny: Backbone, change: Callable[[Any], None]) -> None:
    assert shape_of(tiny.model) is not None
    change(tiny.model.config)
    assert shape_of(tiny.model) is None
