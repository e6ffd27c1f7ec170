"""The packaged SmolLM2-135M-Instruct: loaded once, and what the tiny model showed holds for it too."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode import stock, tokens

from methods.backbone import Backbone, load_backbone
from methods.chat import SYSTEM, encode_prompt, encode_text
from methods.decode import Clock, generate, quoting
from methods.parts import CONTROL_TOKENS
from methods.prefixes import Prefixes, reusing
from methods.recall.bank import MemoryBank
from methods.recall.embed import _batch_extract_embeddings
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from tasks.base import Message, TaskData
from tasks.registry import load_task

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def smollm2() -> Backbone:
    return load_backbone(device="cpu", dtype="float32")


def test_control_tokens_are_single_ids_and_texts_never_are(smollm2: Backbone) -> None:
    ids = smollm2.ids
    assert len({*ids.new_rows, ids.eos}) == 6
    rows = smollm2.model.get_input_embeddings().weight
    assert rows.data_ptr() == smollm2.model.get_output_embeddings().weight.data_ptr()
    for token, row in zip(CONTROL_TOKENS, (ids.think, ids.think_end, ids.recall, ids.recall_end), strict=False):
        assert smollm2.tokenizer(token, add_special_tokens=False).input_ids == [row]
    offsets = rows[list(ids.new_rows)] - rows[: min(ids.new_rows)].mean(dim=0)
    torch.testing.assert_close(
        offsets.norm(dim=-1), torch.full((5,), smollm2.facts.embedding_norm / 2), rtol=0.01, atol=0
    )
    cosines = torch.nn.functional.cosine_similarity(offsets[:, None], offsets[None], dim=-1)
    assert (cosines - torch.eye(5)).abs().max() < 0.2  # each new row goes its own way
    for text in (*CONTROL_TOKENS, "<|im_end|>", "a <recall> b"):
        encoded = encode_text(smollm2.tokenizer, text)
        assert not set(encoded) & set(smollm2.tokenizer.all_special_ids)
        assert smollm2.tokenizer.decode(encoded) == text


def test_text_survives_and_a_plain_prompt_is_the_templates_own(smollm2: Backbone) -> None:
    # Its vocabulary lacks the bytes of six control characters and of two planes without characters.
    @settings(max_examples=50)
    @given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=("Cs", "Cc", "Cn"))))
    def survives(text: str) -> None:
        assert smollm2.tokenizer.decode(encode_text(smollm2.tokenizer, text)) == text

    survives()
    messages = [
        Message("user", "What is paid?"),
        Message("assistant", "31 euros."),
        Message("user", "And in Cork?"),
    ]
    chat = [{"role": "system", "content": SYSTEM}, *({"role": m.role, "content": m.content} for m in messages)]
    text = smollm2.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert encode_prompt(smollm2, messages) == smollm2.tokenizer(text, add_special_tokens=False).input_ids


def test_an_untrained_model_emits_no_control_token(smollm2: Backbone) -> None:
    """New rows at a random direction alone came out in place of words, e.g. of "Lisbon"."""
    prompts = [encode_prompt(smollm2, [Message("user", q)]) for q in ("Name the capital of Portugal.", "Say hi.")]
    for output in generate(smollm2, prompts, 24):
        assert not set(output.token_ids) & set(smollm2.ids.new_rows)


def test_the_loop_is_stock_greedy(smollm2: Backbone) -> None:
    """In one left-padded batch, of which one row stops early."""
    questions = ("Reply with the word yes and nothing else.", "Please write one long line about the autumn rain.")
    prompts = [encode_prompt(smollm2, [Message("user", question)]) for question in questions]
    bank = MemoryBank(torch.zeros(smollm2.facts.hidden_size), 1.0, smollm2.fingerprint)
    bank.write(["a"], ["a"], torch.ones(1, smollm2.facts.hidden_size), [torch.ones(1, smollm2.facts.hidden_size)])
    ours = generate(smollm2, prompts, 8, mechanism=RecallMechanism(bank, smollm2, AutoregressiveRecall()))
    assert tokens(ours) == stock(smollm2, prompts, 8)
    assert ours[0].token_ids != ours[1].token_ids


def test_a_hundred_answers_are_the_same_with_drafts(smollm2: Backbone) -> None:
    """Drafts that hold for some tokens and then do not, in batches; alone, answers take fewer forwards."""
    rng = random.Random(0)
    questions = [qa.question for qa in load_task("regs").questions[:100]]
    prompts = [encode_prompt(smollm2, [Message("user", question)]) for question in questions]
    saved, prefixes = 0, Prefixes()
    for start in range(0, len(prompts), 20):
        part = prompts[start : start + 20]
        with reusing(prefixes):
            serial = tokens(generate(smollm2, part, 16))
        drafts = [(*said[: rng.randrange(1, 16)], *rng.sample(range(1000, 9000), 3)) for said in serial]
        drafters = [quoting([], [draft]) for draft in drafts]
        with reusing(prefixes):
            assert tokens(generate(smollm2, part, 16, drafters=drafters)) == serial
        (alone,) = generate(smollm2, part[:1], 16, drafters=drafters[:1])
        assert alone.token_ids == serial[0]
        saved += len(serial[0]) - alone.forwards
    assert saved > 5


def test_the_bank_head_finds_a_text_by_its_own_vector(smollm2: Backbone, regs: TaskData) -> None:
    texts = [m.text for m in regs.memories]
    raw = _batch_extract_embeddings(smollm2, texts)
    bank = MemoryBank(raw.mean(dim=0), smollm2.facts.embedding_norm, smollm2.fingerprint)
    keys = bank.normalise(raw)
    bank.write([m.id for m in regs.memories], texts, keys, list(keys[:, None]))
    mechanism = RecallMechanism(bank, smollm2, AutoregressiveRecall())
    mechanism.begin(len(texts), Clock(smollm2.device, enabled=False))
    mechanism.give(range(len(texts)), bank.keys_MD * 40)
    assert [bank.texts[event.memory_index] for (event,) in mechanism.events] == texts
    assert all(event.score == pytest.approx(1.0, abs=1e-5) for (event,) in mechanism.events)
