"""Tiny random models of real families, each as a folder that `load_backbone` reads: seconds, no network.

Tokenizers are of the kinds that the families have: byte-level BPE, and SentencePiece-like BPE (`▁` is a blank).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from model_script import EVERY_ROW, scripted
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from methods.backbone import Backbone, load_backbone
from methods.base import Answer, Context, Method
from methods.recall.method import RecallConfig, RecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod
from methods.train import LoraTrainConfig
from tasks.base import QA, Conversation, Memory, Message

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}
METHODS = ("sft", "recall")
MEMORIES = [
    Memory(
        f"m{floor}",
        f"Level {floor} costs {floor * 7} euros.",
        "Parking",
        (QA(f"q{floor}", f"What does level {floor} cost?", f"{floor * 7} euros", (f"m{floor}",)),),
    )
    for floor in (1, 2)
]
SFT = [
    Conversation(
        f"c{n}", (Message("user", f"{n} + {n}?"), Message("assistant", f"<think>\nAdd.\n</think>\n{n + n}"))
    )
    for n in range(8)
]
CONTEXTS = [
    Context((*history, Message("user", "What does level 2 cost? " + "so " * words)), 10)
    for words, history in ((1, ()), (5, (Message("user", "Hi"), Message("assistant", "Hello."))), (9, ()))
]
LETTERS = [chr(code) for code in range(33, 127)]
WORDS = ("\u2581t", "\u2581th", "\u2581the", "in", "er", "\u2581a", "\n\n")
LLAMA2 = (  # the system message inside the first user turn, blanks around contents cut
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = '<<SYS>>\n' + "
    "messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set turns = messages %}{% set system = '' %}"
    "{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + "
    "m['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (  # the system message inside the last user turn
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and "
    "messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}{{ m['content'] + "
    "'[/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
PLAIN = (  # no control token at all, and a date
    "Date: {{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def template_files() -> list[Path]:
    """The chat templates in the package trl, which is read and never imported."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None, "trl is a development dependency"
    return sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))


def shipped(name: str) -> str:
    return next(f for f in template_files() if f.stem == name).read_text(encoding="utf-8")


def marks_of(template: str) -> list[str]:
    """The control tokens that a template writes."""
    return sorted(set(re.findall(r"<[|｜]?[\w▁/]+[|｜]?>|\[/?[A-Z_]+\]", template)))


def wrapped(core: Tokenizer, template: str, marks: Sequence[str], **named: str | None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    tokenizer.chat_template = template
    return tokenizer


def byte_level(template: str, marks: Sequence[str] = (), **named: str | None) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return wrapped(core, template, marks, **({"eos_token": "<|endoftext|>"} | named))


def sentencepiece(
    template: str, blank: str, marks: Sequence[str] = (), **named: str | None
) -> PreTrainedTokenizerFast:
    """blank: what one is put before: every part ("legacy"), the first ("first"), or nothing ("none")."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        "\n",
        *LETTERS,
        *WORDS,
    ]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [(word[:cut], word[cut:]) for word in WORDS for cut in range(1, len(word))]
    merges = [(a, b) for a, b in merges if a in vocab and b in vocab]
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Replace(" ", "\u2581")]
    if blank == "legacy":
        steps.insert(0, normalizers.Prepend("\u2581"))
    if blank == "first":
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        core.normalizer = normalizers.Sequence(steps)
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if blank == "none" else [decoders.Strip(" ", 1, 0)])
    )
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return wrapped(core, template, marks, **(tokens | named))


def llama() -> PreTrainedTokenizerFast:
    return sentencepiece(LLAMA2, "legacy")


def mistral() -> PreTrainedTokenizerFast:
    return sentencepiece(MISTRAL, "first", ["[INST]", "[/INST]"])


def qwen3() -> PreTrainedTokenizerFast:
    template = shipped("qwen3")
    marks = [mark for mark in marks_of(template) if "think" not in mark]
    tokenizer = byte_level(template, [*marks, "<|endoftext|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens(["<think>", "</think>"])  # known, and not as special
    return tokenizer


def gemma3() -> PreTrainedTokenizerFast:
    template = shipped("gemma3")
    tokenizer = sentencepiece(template, "none", [*marks_of(template), "<pad>"], pad_token="<pad>")
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<unused_a>", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}, False)
    return tokenizer


def phi3() -> PreTrainedTokenizerFast:
    template = shipped("phi3")
    tokenizer = sentencepiece(template, "legacy")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(m, rstrip=True, normalized=False) for m in marks_of(template)]}
    )
    return tokenizer


def gpt2() -> PreTrainedTokenizerFast:
    return byte_level(PLAIN)


def _llama(**options: Any) -> dict[str, Any]:
    return SIZES | {"tie_word_embeddings": False} | options


# family -> (its tokenizer, its configuration's settings)
FAMILIES: Mapping[str, tuple[Callable[[], PreTrainedTokenizerFast], dict[str, Any]]] = {
    "llama": (llama, _llama()),
    "mistral": (mistral, _llama(sliding_window=None)),
    "qwen3": (qwen3, SIZES | {"tie_word_embeddings": True, "padded": 24}),
    "gemma3_text": (
        gemma3,
        SIZES
        | {"num_hidden_layers": 2, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
        | {"query_pre_attn_scalar": 8, "padded": -1},
    ),
    "phi3": (phi3, _llama(pad_token_id=0, original_max_position_embeddings=4096)),
    "gpt2": (gpt2, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, "initializer_range": 0.2}),
}
STOPS = {"gemma3_text": ["<end_of_turn>", "</s>"], "phi3": ["</s>", "<|end|>"]}  # generation_config.json's


def save_family(name: str, folder: Path) -> Path:
    make, settings = FAMILIES[name]
    tokenizer = make()
    return save_model(name, tokenizer, folder, STOPS.get(name, []), **settings)


def save_model(
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    stops: Sequence[str] = (),
    padded: int = 0,
    **settings: Any,
) -> Path:
    """padded: rows of the embedding that no token has."""
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + padded, **ends, **settings)
    model = AutoModelForCausalLM.from_config(config)
    # What another model's file may bring, and what no run here has set.
    model.generation_config = GenerationConfig(
        eos_token_id=[int(tokenizer.convert_tokens_to_ids(token)) for token in stops] or tokenizer.eos_token_id,
        no_repeat_ngram_size=2,
        bad_words_ids=[[40]],
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def method_of(kind: str, folder: Path, work: Path) -> Method:
    """A method on the model of a folder, before its fit. work: where fits leave their adapters."""
    backbone = load_backbone(str(folder), device="cpu", dtype="float32")
    setup = MethodSetup(backbone, LoraTrainConfig(max_tokens=600, batch_tokens=200), folder=work)
    if kind == "sft":
        return SftMethod(setup)
    return RecallMethod(setup, RecallConfig(vectors_per_memory=2))


def answers(method: Any, ask: Callable[[Method], list[Answer]]) -> list[str]:
    """Raw answers; each recalls at its second token, where the method can."""
    backbone: Backbone = method.backbone
    script = {(EVERY_ROW, 1): backbone.ids.recall} if isinstance(method, RecallMethod) else {}
    with scripted(backbone, script):
        return [answer.raw for answer in ask(method)]


def alone(method: Method) -> list[str]:
    return [answers(method, lambda m, ctx=ctx: [m.answer(ctx)])[0] for ctx in CONTEXTS]  # type: ignore[misc]


def from_disk(root: Path) -> dict[str, list[str]]:
    """What every saved fit under a folder answers: to be called in another process than the fits."""
    found = {}
    for name in FAMILIES:
        for kind in METHODS:
            method = method_of(kind, root / name, root / f"{name}-{kind}-again")
            method.load(root / f"{name}-{kind}")
            found[f"{name}-{kind}"] = alone(method)
    return found
