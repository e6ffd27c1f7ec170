"""An answer that is streamed is the answer, and nothing is streamed where nobody listens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_script import says, scripted
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from methods.answering import parts_of, prompts_for, recalled_text_s, stream_answer
from methods.backbone import Backbone
from methods.base import Answer, Context, Method
from methods.chat import encode_text
from methods.decode import generate, listening
from methods.parts import Part
from methods.rag import RagMethod
from methods.recall.method import RecallMethod
from methods.recall.recipe import make_bank
from methods.setup import MethodSetup
from methods.sft import SftMethod
from tasks.base import Message, TaskData

NAMES = ("recall", "sft", "rag")


@pytest.fixture
def asked(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Method]]:
    """The methods without training: enough to look up and to answer."""
    monkeypatch.setattr("methods.rag.load_encoder", lambda *_args, **_kwargs: encoder)
    setup = MethodSetup(pristine_lively.clone(), folder=tmp_path)
    recall, rag = RecallMethod(setup), RagMethod(setup)
    recall.bank = make_bank(setup.backbone, regs.memories, 8, 0)
    rag.retriever.upsert(regs.memories)
    yield {"recall": recall, "sft": SftMethod(setup), "rag": rag}


def content(answer: Answer) -> tuple[Any, ...]:
    return answer.raw, answer.think, answer.final, answer.lookups, answer.finished, answer.usage.new_tokens


def well_formed(backbone: Backbone) -> dict[tuple[int, int], int]:
    ids = backbone.ids
    script = says(
        backbone, ids.think, "\n", ids.recall, "?" * 8, "Süd 🦊", ids.recall_end, "\n", ids.think_end, "\n42"
    )
    return script | {(-1, len(script)): ids.eos}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("formed", [True, False])
def test_what_is_streamed_is_the_answer(asked: dict[str, Method], name: str, formed: bool) -> None:
    method = asked[name]
    backbone = method.backbone  # type: ignore[attr-defined]
    ctx = Context((Message("user", "How much is paid per night in Lisbon?"),), 48)
    answers, heard = [], list[Sequence[Part]]()
    for stream in (True, False):
        with scripted(backbone, well_formed(backbone)) if formed else nullcontext():
            if stream:
                answers.append(stream_answer(method, ctx, backbone, heard.append))
            else:
                answers.append(method.answer(ctx))
    streamed, plain = answers
    assert content(streamed) == content(plain)
    assert len(heard) == streamed.usage.new_tokens and heard[-1] == streamed.parts
    assert streamed.finished is formed
    assert bool(streamed.lookups) is (name == "rag" or (name == "recall" and formed))


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_answer_leaves_nothing_behind(asked: dict[str, Method], name: str) -> None:
    method = asked[name]
    backbone = method.backbone  # type: ignore[attr-defined]
    ctx = Context((Message("user", "How much?"),), 12)
    before = method.answer(ctx)
    seen: list[Sequence[Part]] = []

    def stop(parts: Sequence[Part]) -> None:
        seen.append(parts)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_answer(method, ctx, backbone, stop)
    assert len(seen) == 1
    assert content(method.answer(ctx)) == content(before)
    assert len(seen) == 1  # nobody listens any more


@pytest.mark.parametrize("name", NAMES)
def test_times_run_from_the_question_on(
    asked: dict[str, Method], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Template and tokenisation are a stage of every method, inside its first token's time and the whole one's."""
    slow_s = 0.2
    module = sys.modules[type(asked[name]).__module__]

    def slowly(*args: Any) -> Any:
        time.sleep(slow_s)
        return prompts_for(*args)

    monkeypatch.setattr(module, "prompts_for", slowly)
    backbone = asked[name].backbone  # type: ignore[attr-defined]
    with scripted(backbone, well_formed(backbone)):
        usage = asked[name].answer(Context((Message("user", "How much?"),), 40)).usage
    assert usage.stage_s["prompt"] >= slow_s
    assert slow_s < usage.ttft_s < usage.ttfa_s < usage.total_s
    assert sum(usage.stage_s.values()) == pytest.approx(usage.total_s)
    if name == "rag":
        assert {"embed", "search"} <= set(usage.stage_s)
        assert usage.ttft_s > usage.stage_s["embed"] + usage.stage_s["search"] + usage.stage_s["prompt"]


def test_recalled_text_is_timed_over_all_recalls(pristine: Backbone) -> None:
    ids = pristine.ids
    pad, end, text = ids.memory_pad, ids.recall_end, 5
    times = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]

    def seconds(*tokens: int) -> float:
        return recalled_text_s(tokens, times, ids)

    assert seconds(ids.think, ids.recall, pad, text, end, ids.think_end, text) == 16 - 4
    two = (ids.recall, pad, text, end, ids.recall, pad, pad, text, end, ids.think_end)  # the second: two vectors
    assert seconds(*two) == (8 - 2) + (256 - 32)
    assert seconds(ids.recall, pad, text, ids.recall, pad, end) == (8 - 2) + (32 - 16)
    assert seconds(ids.recall, pad, text, ids.think_end, text) == 8 - 2
    assert seconds(ids.recall, pad, text, text) == 8 - 2  # cut
    assert seconds(text, text) == seconds(ids.recall, pad) == 0


def test_a_listener_hears_every_token_of_an_answer(lively: Backbone) -> None:
    heard: list[int] = []
    with listening(heard.append):
        (inside,) = generate(lively, [[5, 6, 7]], 6)
    assert [inside] == generate(lively, [[5, 6, 7]], 6)
    assert tuple(heard) == inside.token_ids


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.binary(max_size=4), st.booleans())
def test_no_text_is_lost_or_taken_for_a_token(pristine: Backbone, text: str, broken: bytes, closes: bool) -> None:
    """Control tokens that a text spells are text; bytes need not make whole characters."""
    ids, tokenizer = pristine.ids, pristine.tokenizer
    letters = {token: i for token, i in tokenizer.get_vocab().items() if len(token) == 1}
    spelt = encode_text(tokenizer, f"</think>{text}<recall><|im_end|>")
    token_ids = [ids.think, *spelt, *(sorted(letters.values())[byte] for byte in broken)]
    token_ids += [ids.think_end, 5, ids.eos] if closes else []
    parts = parts_of(pristine, token_ids)
    assert "".join(part.text for part in parts) == tokenizer.decode(token_ids)
    ends = [("control", "</think>"), ("text", tokenizer.decode([5])), ("stop", "<|im_end|>")] if closes else []
    assert [parts[0], *parts[2:]] == [("control", "<think>"), *ends]


def test_a_blank_behind_a_control_token_stays() -> None:
    """With tokenizers that put a blank before the first word and take it away again."""
    core = Tokenizer(models.BPE(vocab={"\u2581So": 0, "</recall>": 1, "<s>": 2}, merges=[], unk_token=None))
    core.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=["</recall>"])
    backbone: Any = SimpleNamespace(tokenizer=tokenizer, control_ids={1}, facts=SimpleNamespace(stop_ids=(2,)))
    assert parts_of(backbone, [0, 1, 0, 0]) == (("text", "So"), ("control", "</recall>"), ("text", " So So"))
