"""Last hidden states: the same whatever the batch, within limits that are named."""

from __future__ import annotations

import pytest
import torch

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall import embed
from methods.recall.embed import (
    _batch_extract_embeddings,
    check_lengths,
    memory_limit,
)
from tasks.base import Memory


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
