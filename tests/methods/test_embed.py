"""Last hidden states: the same whatever the batch, within limits that are named, and what greedy decoding says."""

from __future__ import annotations

import pytest
import torch

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from methods.recall import embed
from methods.recall.embed import (
    _batch_extract_embeddings,
    check_lengths,
    memory_limit,
    recall_margins,
    too_long_to_recite,
)
from tasks.base import Memory, Message

ASKED = [(Message("user", text),) for text in ("Where?", "What is the rule on skates in Oulu?", "Hello there!")]


# Text -> raw vector.


def test_a_vector_is_the_last_tokens_state_whatever_the_batch(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a", "A somewhat longer clause.", "Meals cost 31 euros.", "<recall>"]
    alone = torch.cat([_batch_extract_embeddings(lively, [text]) for text in texts])
    for size in (2, 3, 32):
        monkeypatch.setattr(embed, "BATCH_SIZE", size)
        together = _batch_extract_embeddings(lively, texts)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([lively.tokenizer(texts[1]).input_ids])
    with torch.no_grad():
        state = lively.model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(alone[1], state)


def test_a_suffix_is_read_too(lively: Backbone) -> None:
    with_suffix = _batch_extract_embeddings(lively, ["a clause"], suffix=" In short:")
    torch.testing.assert_close(with_suffix, _batch_extract_embeddings(lively, ["a clause In short:"]))


def test_a_text_over_the_limit_is_named(lively: Backbone) -> None:
    with pytest.raises(MethodError, match=r"'Long clause.* 22 tokens, the limit is 21"):
        _batch_extract_embeddings(lively, ["short", "Long clause, too long."], max_tokens=21)


def test_a_text_may_be_as_long_as_the_window_unless_a_limit_is_named(lively: Backbone) -> None:
    with pytest.raises(MethodError, match=r"2049 tokens, the limit is 2048"):
        _batch_extract_embeddings(lively, ["x" * 2049])
    assert _batch_extract_embeddings(lively, ["x" * 2049], max_tokens=2049).shape == (1, lively.facts.hidden_size)


def test_a_memory_leaves_room_for_question_and_answer(lively: Backbone) -> None:
    assert memory_limit(lively) == lively.facts.context_length - 512
    fits, over = Memory("fits", "x" * 1536), Memory("over", "x" * 1530, "A title")
    check_lengths(lively, [fits])
    with pytest.raises(MethodError, match=r"memory 'over' has 1539 tokens, .* leaves 1536"):
        check_lengths(lively, [fits, over])


def test_memories_that_fill_an_answer_are_counted_and_the_longest_is_named(lively: Backbone) -> None:
    memories = [Memory("short", "x" * 94), Memory("long", "x" * 95), Memory("longest", "x" * 120)]
    assert too_long_to_recite(lively, memories, 126) == ""
    assert "'longest' takes 132" in too_long_to_recite(lively, memories, 126, num_pads=8)
    said = too_long_to_recite(lively, memories, 100)  # four tokens stand around a recited text, and its pad
    assert "2 of 3 memories" in said
    assert "100 tokens and 'longest' takes 125" in said


# How much the model wants to recall.


def recalls(backbone: Backbone, messages: tuple[Message, ...]) -> bool:
    """Whether greedy decoding begins the think with <recall>."""
    ids = backbone.ids
    prompt = encode_prompt(backbone, messages) + encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    (output,) = generate(backbone, [prompt], 1)
    return output.token_ids[0] == ids.recall


def test_a_push_beyond_the_margin_and_no_less_makes_it_recall(lively: Backbone) -> None:
    head, pushed = lively.model.get_output_embeddings(), 0.0

    def push(_module: object, _args: object, logits_BTV: torch.Tensor) -> torch.Tensor:
        logits_BTV = logits_BTV.clone()
        logits_BTV[..., lively.ids.recall] += pushed
        return logits_BTV

    margins = recall_margins(lively, ASKED).tolist()
    handle = head.register_forward_hook(push)
    for messages, margin in zip(ASKED, margins, strict=True):
        pushed = 0.0
        assert recalls(lively, messages) == (margin > 0)
        pushed = -margin + 0.01
        assert recalls(lively, messages)
        pushed = -margin - 0.01
        assert not recalls(lively, messages)
    handle.remove()


def test_padding_changes_no_margin(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    together = recall_margins(lively, ASKED).tolist()
    assert [recall_margins(lively, [messages]).item() for messages in ASKED] == pytest.approx(together, abs=1e-4)
    monkeypatch.setattr(embed, "BATCH_SIZE", 2)
    assert recall_margins(lively, ASKED).tolist() == pytest.approx(together, abs=1e-4)
