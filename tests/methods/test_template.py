"""Chat templates as models bring them: what is read of each, and ids that are the template's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_families import byte_level, marks_of, template_files
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from methods.base import MethodError
from methods.parts import CONTROL_TOKENS
from methods.template import TemplateFacts, encode_text, placed, prompt_ids, read_template, render, turn_end
from tasks.base import Message

CHAT = [
    Message("system", "Be brief."),
    Message("user", "Where's the \u4f1a\u8bae?\nIn C++ & <b>?"),
    Message("assistant", "On level 2."),
    Message("user", "And on Sundays?"),
]
# What the templates of the package trl write behind an assistant turn, by the beginning of their names.
ENDS = {
    "cohere2": "<|END_RESPONSE|>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>",
    "gemma": "<end_of_turn>",
    "glm4moe_training": "<|user|>",
    "glm4moe": None,
    "gptoss": "<|return|>",
    "idefics3": "<end_of_utterance>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llava": "</s>",
    "muse_glimmer": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi3": "<|end|>",
    "qwen": "<|im_end|>",
    "smolvlm": "<end_of_utterance>",
}
FOLDED = ("gemma", "gemma_training")
PARTS = ("idefics3", "llava", "smolvlm")
DATED = ("gptoss", "llama3_2", "muse_glimmer")
OPENING = {"qwen3_5_nothink": "<think>\n\n</think>\n\n"} | dict.fromkeys(
    ("deepseek", "nemotron", "qwen3_5_think", "qwen3_6", "qwen3_8"), "<think>\n"
)


def of_name(table: dict[str, Any], stem: str, default: Any = "") -> Any:
    return next((value for name, value in table.items() if stem.startswith(name)), default)


def with_template(template: str) -> PreTrainedTokenizerFast:
    return byte_level(template, [*marks_of(template), *CONTROL_TOKENS], bos_token="<|bos|>")


@pytest.mark.parametrize("file", template_files(), ids=lambda file: file.stem)
def test_a_shipped_template_is_read_and_its_ids_are_met(file: Path) -> None:
    template, stem = file.read_text(encoding="utf-8"), file.stem
    tokenizer = with_template(template)
    facts = read_template(tokenizer)
    assert facts == TemplateFacts(
        system_turn="in the first user turn" if stem in FOLDED else "the template's",
        content="parts" if stem.startswith(PARTS) else "text",
        opened_think=of_name(OPENING, stem),
        date="2025-01-01" if stem.startswith(DATED) else "",
    )
    end = turn_end(tokenizer, facts, [])
    assert (None if end is None else tokenizer.convert_ids_to_tokens(end)) == of_name(ENDS, stem)
    said = [
        {
            "role": m.role,
            "content": [{"type": "text", "text": m.content}] if facts.content == "parts" else m.content,
        }
        for m in placed(facts, CHAT)
    ]
    own = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    ids = prompt_ids(tokenizer, facts, CHAT)
    assert ids == own[: len(ids)]
    assert tokenizer.decode(own[len(ids) :]) == facts.opened_think
    marks = "x".join(tokenizer.get_added_vocab())
    masked = [Message(m.role, m.content + marks) for m in CHAT]
    added = set(tokenizer.get_added_vocab().values())
    assert [i for i in prompt_ids(tokenizer, facts, masked) if i in added] == [i for i in ids if i in added]


def test_there_are_templates_to_read() -> None:
    assert len(template_files()) > 60


def test_a_mark_that_opens_the_next_turn_ends_this_one_where_the_model_stops_at_it() -> None:
    (file,) = [file for file in template_files() if file.stem == "glm4moe"]
    tokenizer = with_template(file.read_text(encoding="utf-8"))
    facts = read_template(tokenizer)
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert turn_end(tokenizer, facts, []) is None
    assert turn_end(tokenizer, facts, [user]) == user


def test_a_date_stands_still() -> None:
    tokenizer = with_template(
        "{{ strftime_now('%d %B %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    facts = read_template(tokenizer)
    assert facts.date == "2025-01-01"
    assert tokenizer.decode(prompt_ids(tokenizer, facts, [Message("user", "a")])) == "01 January 2025a"
    assert "strftime_now" not in tokenizer.chat_template


def test_a_system_message_moves_into_the_first_user_turn() -> None:
    facts = TemplateFacts(system_turn="in the first user turn")
    system, user, reply = Message("system", "S"), Message("user", "U"), Message("assistant", "A")
    assert placed(facts, [system, user, reply]) == [Message("user", "S\n\nU"), reply]
    assert placed(facts, [system, reply]) == [Message("user", "S"), reply]
    assert placed(facts, [user, reply]) == [user, reply]
    assert placed(TemplateFacts(), [system, user]) == [system, user]


def test_messages_that_a_template_refuses_are_refused_in_its_words() -> None:
    (file,) = [file for file in template_files() if file.stem == "gemma"]
    tokenizer = with_template(file.read_text(encoding="utf-8"))
    facts = read_template(tokenizer)
    with pytest.raises(MethodError, match=r"cannot write these messages \(Conversation roles must alternate"):
        render(tokenizer, facts, [Message("user", "a"), Message("user", "b")])


def wordlike(core: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    tokenizer.add_tokens(["<x>"])
    return tokenizer


def test_a_mark_that_the_vocabulary_holds_as_a_piece_is_text_as_well() -> None:
    """Unigram would take the whole piece, and BPE would merge up to it."""
    letters = ["<", ">", "/", "s", "x", "\u2581"]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<x>", -1.0), *((letter, -2.0) for letter in letters)]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    names = ["<unk>", "</s>", "<x>", *letters, "<x"]
    merges = [("<", "x"), ("<x", ">")]
    bpe = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token="<unk>"))
    for core in (unigram, bpe):
        tokenizer = wordlike(core)
        assert tokenizer("<x>", add_special_tokens=False).input_ids != encode_text(tokenizer, "<x>")
        ids = encode_text(tokenizer, "s<x></s>")
        assert tokenizer.convert_ids_to_tokens(ids)[0] == "s"
        assert not {0, 1, 2} & set(ids)
        assert tokenizer.decode(ids).replace(" ", "") == "s<x></s>"
