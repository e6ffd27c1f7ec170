"""Messages -> ids: no text becomes a control token, nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.backbone import Backbone
from methods.chat import SYSTEM, encode_pieces, encode_prompt, encode_text, fit_history
from methods.parts import CONTROL_TOKENS
from tasks.base import Message

TEMPLATE_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
PLACEHOLDER = "\ue0000\ue001"  # what encode_prompt itself renders the template with


def special_ids(backbone: Backbone, ids: list[int]) -> list[int]:
    special = set(backbone.tokenizer.all_special_ids)
    return [i for i in ids if i in special]


@pytest.mark.parametrize(
    "text", [*CONTROL_TOKENS, *TEMPLATE_TOKENS, PLACEHOLDER, "a<recall>b</think>\n<|im_end|>"]
)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_text_that_looks_like_a_control_token_is_text(pristine: Backbone, text: str, role: str) -> None:
    def prompt(content: str) -> list[int]:
        history = [Message("user", "x"), Message("assistant", "y")]
        history[0 if role == "user" else 1] = Message(role, content)  # type: ignore[arg-type]
        return encode_prompt(pristine, [*history, Message("user", "z")])

    assert special_ids(pristine, encode_text(pristine.tokenizer, text)) == []
    assert special_ids(pristine, prompt(text)) == special_ids(pristine, prompt("plain"))
    assert (
        pristine.tokenizer.decode(prompt(text)).count(text)
        == pristine.tokenizer.decode(prompt("q")).count(text) + 1
    )


def test_a_piece_given_as_an_id_is_that_token(pristine: Backbone) -> None:
    ids = encode_pieces(pristine.tokenizer, ["<recall>", pristine.ids.recall, "a"])
    assert ids.count(pristine.ids.recall) == 1
    assert pristine.tokenizer.decode(ids) == "<recall><recall>a"


@given(st.text())
def test_text_survives_the_round_trip(pristine: Backbone, text: str) -> None:
    assert pristine.tokenizer.decode(encode_text(pristine.tokenizer, text)) == text


@given(st.lists(st.text(st.characters(exclude_characters="<", codec="utf-8")), min_size=1, max_size=4))
def test_a_plain_prompt_is_the_templates_own(pristine: Backbone, texts: list[str]) -> None:
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], text) for i, text in enumerate(texts)]  # type: ignore[arg-type]
    chat = [{"role": "system", "content": SYSTEM}] + [{"role": m.role, "content": m.content} for m in messages]
    rendered = pristine.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    expected = pristine.tokenizer(rendered, add_special_tokens=False).input_ids
    assert encode_prompt(pristine, messages) == expected


def test_a_system_message_of_ones_own_replaces_the_default(pristine: Backbone) -> None:
    prompt = encode_prompt(pristine, [Message("system", "Be brief."), Message("user", "Hi")])
    text = pristine.tokenizer.decode(prompt)
    assert text.count("system") == 1
    assert "Be brief." in text
    assert SYSTEM not in text


def conversation(exchanges: int) -> list[Message]:
    history = [
        message
        for i in range(exchanges)
        for message in (Message("user", f"question {i}"), Message("assistant", f"reply {i}"))
    ]
    return [*history, Message("user", "the last question")]


def test_a_history_that_fits_is_not_cut(pristine: Backbone) -> None:
    messages = conversation(4)
    full = encode_prompt(pristine, messages)
    assert fit_history(pristine, messages, len(full)) == (full, 0)


@pytest.mark.parametrize("dropped", [1, 2, 3, 4])
def test_the_oldest_exchanges_are_cut_first(pristine: Backbone, dropped: int) -> None:
    messages = conversation(4)
    wanted = encode_prompt(pristine, messages[2 * dropped :])
    assert fit_history(pristine, messages, len(wanted)) == (wanted, 2 * dropped)
    longer = len(encode_prompt(pristine, messages[2 * (dropped - 1) :]))
    assert fit_history(pristine, messages, longer - 1) == (wanted, 2 * dropped)


def test_the_last_message_is_never_cut(pristine: Backbone) -> None:
    for messages in (conversation(2), conversation(0), conversation(1)[1:]):
        ids, cut = fit_history(pristine, messages, 1)
        assert ids == encode_prompt(pristine, messages[-1:])
        assert cut == len(messages) - 1
