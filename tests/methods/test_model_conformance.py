"""Any model: families of models fit, answer and come back from disk, or are refused in one sentence at load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import (
    CONTEXTS,
    FAMILIES,
    MEMORIES,
    METHODS,
    PLAIN,
    SFT,
    SIZES,
    alone,
    answers,
    byte_level,
    gpt2,
    method_of,
    save_family,
    save_model,
)

from methods.answering import prompts_for
from methods.backbone import Backbone, load_backbone
from methods.base import Context, MethodError
from methods.chat import SYSTEM, encode_prompt, encode_text, recall_prompt
from methods.decode import Generated, Given, generate, serially
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.setup import MethodSetup
from methods.sft import SftMethod
from methods.template import placed
from methods.train import LoraTrainConfig
from tasks.base import Memory, Message

ROOT = Path(__file__).resolve().parents[2]
CHILD = "import json, sys, pathlib, tiny_families as t; print(json.dumps(t.from_disk(pathlib.Path(sys.argv[1]))))"
BOTH = ("model.embed_tokens", "lm_head")
SEPARATE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# family -> matrices with control rows, linear layers, those of query and value, system turn, stop tokens
EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str, list[str]]] = {
    "llama": (BOTH, SEPARATE, ("q_proj", "v_proj"), "the template's", ["</s>"]),
    "mistral": (BOTH, SEPARATE, ("q_proj", "v_proj"), "in the first user turn", ["</s>"]),
    "qwen3": (BOTH[:1], SEPARATE, ("q_proj", "v_proj"), "the template's", ["<|im_end|>"]),
    "gemma3_text": (BOTH[:1], SEPARATE, ("q_proj", "v_proj"), "the template's", ["<end_of_turn>", "</s>"]),
    "phi3": (
        BOTH,
        ("o_proj", "qkv_proj", "gate_up_proj", "down_proj"),
        ("qkv_proj",),
        "the template's",
        ["<|end|>", "</s>"],
    ),
    "gpt2": (
        ("transformer.wte",),
        ("c_attn", "c_proj", "c_fc"),
        ("c_attn",),
        "the template's",
        ["<|endoftext|>"],
    ),
}
TEXTS = (
    "the theatre",
    " blanks before and behind \n",
    "two\n\nlines",
    "C++ & 'quotes' <b>",
    "\u65e5\u672c \u00e9\U0001f600",
    "a  b",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        save_family(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def load(root: Path) -> Callable[[str], Backbone]:
    """Each family loaded once. Shared: never change it."""
    loaded: dict[str, Backbone] = {}

    def of(name: str) -> Backbone:
        if name not in loaded:
            loaded[name] = load_backbone(str(root / name), device="cpu", dtype="float32")
        return loaded[name]

    return of


@pytest.fixture(scope="module")
def fitted(root: Path) -> Callable[[str, str], Any]:
    """Each family's methods, fitted once and saved."""
    fits: dict[str, Any] = {}

    def of(name: str, kind: str) -> Any:
        key = f"{name}-{kind}"
        if key not in fits:
            method = method_of(kind, root / name, root / f"{key}-work")
            method.fit(MEMORIES, SFT)
            method.save(root / key)
            fits[key] = method
        return fits[key]

    return of


@pytest.fixture(scope="module")
def elsewhere(root: Path, fitted: Callable[[str, str], Any]) -> dict[str, list[str]]:
    """What another process says that loads all fits."""
    for name in FAMILIES:
        for kind in METHODS:
            fitted(name, kind)
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(root)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/methods'}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_facts(load: Callable[[str], Backbone], name: str) -> None:
    backbone = load(name)
    facts, tokenizer = backbone.facts, backbone.tokenizer
    found = facts.trained_matrices, facts.lora_targets, facts.query_value_targets, facts.template.system_turn
    assert (*found, tokenizer.convert_ids_to_tokens(list(facts.stop_ids))) == EXPECTED[name]
    assert backbone.ids.eos == facts.stop_ids[0] == facts.turn_end
    assert (facts.context_length, facts.hidden_size) == (2048 if name == "gpt2" else 4096, 32)
    assert facts.learned_positions == facts.fan_in_fan_out == (name == "gpt2")
    assert facts.fused_query_value == (name in ("gpt2", "phi3"))
    assert facts.template.date == ("2025-01-01" if name == "gpt2" else "")
    json.dumps(asdict(facts))
    rows_VD = backbone.model.get_input_embeddings().weight[: len(tokenizer)]
    scale = 32**0.5 if name == "gemma3_text" else 1.0
    assert facts.embedding_norm == pytest.approx(float(rows_VD.detach().norm(dim=-1).mean()) * scale, rel=1e-4)
    assert backbone.model.generation_config.no_repeat_ngram_size is None
    assert backbone.model.generation_config.bad_words_ids is None


@pytest.mark.parametrize("name", FAMILIES)
def test_two_loads_are_the_same(root: Path, load: Callable[[str], Backbone], name: str) -> None:
    torch.rand(7)  # another state of the global generator
    again = load_backbone(str(root / name), device="cpu", dtype="float32")
    first, second = load(name).model.state_dict(), again.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(weight, second[key]) for key, weight in first.items())
    assert again.fingerprint == load(name).fingerprint
    assert again.facts == load(name).facts


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_has_the_templates_own_ids(load: Callable[[str], Backbone], name: str, text: str) -> None:
    backbone = load(name)
    said = [Message("system", SYSTEM), Message("user", text), Message("assistant", text), Message("user", text)]
    own = backbone.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in placed(backbone.facts.template, said)],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert encode_prompt(backbone, said) == own


@pytest.mark.parametrize("name", FAMILIES)
def test_what_looks_like_an_added_token_is_text(load: Callable[[str], Backbone], name: str) -> None:
    """Flagged special or not, alone or in a chat, and written by the user or by the history's assistant."""
    backbone = load(name)
    tokenizer = backbone.tokenizer
    added = {token: index for token, index in tokenizer.get_added_vocab().items() if token.strip()}
    assert "<think>" in added and (name != "gemma3_text" or "<unused_a>" in added)
    marks = "x".join(added)
    assert not set(encode_text(tokenizer, marks)) & set(added.values())
    assert tokenizer.decode(encode_text(tokenizer, f"x{marks}")) == f"x{marks}"

    def control(text: str) -> list[int]:
        said = [Message("user", text), Message("assistant", text), Message("user", text)]
        return [index for index in encode_prompt(backbone, said) if index in added.values()]

    assert control(marks) == control("plain")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_says_what_each_says_alone(fitted: Callable[[str, str], Any], name: str, kind: str) -> None:
    method = fitted(name, kind)
    said = answers(method, lambda m: m.answer_batch(CONTEXTS))
    assert said == alone(method)
    assert kind == "sft" or all("<recall><|memory_pad|><|memory_pad|>" in raw for raw in said)


class Drafting(RecallMechanism):
    """Drafts what a test says behind a memory, in place of its text."""

    drafts: Sequence[Sequence[int]] = ()  # of each row

    def give(self, rows: Sequence[int], hidden_RD: torch.Tensor) -> list[Given]:
        given = super().give(rows, hidden_RD)
        return [replace(one, draft=self.drafts[row]) for row, one in zip(rows, given, strict=True)]


@pytest.mark.parametrize("name", FAMILIES)
def test_drafted_decoding_says_what_serial_says(fitted: Callable[[str, str], Any], name: str) -> None:
    """Drafts that are right, right at first, and wrong; a cache that does not keep every token takes none."""
    method = fitted(name, "recall")
    prompts = [recall_prompt(method.backbone, ctx.messages) for ctx in CONTEXTS]

    def said(drafts: Sequence[Sequence[int]]) -> list[Generated]:
        mechanism = Drafting(method.bank, method.backbone, AutoregressiveRecall())
        mechanism.drafts = drafts
        return generate(method.backbone, prompts[: len(drafts)], 12, mechanism=mechanism)

    with serially():
        serial, (one,) = said([()] * 3), said([()])
    right = [out.token_ids[2:8] for out in serial]  # behind both pads
    drafted = said([right[0], [*right[1][:2], 7, 7], [7, 7, 7]])
    assert [out.token_ids for out in drafted] == [out.token_ids for out in serial]
    (alone_drafted,) = said([right[0]])
    assert alone_drafted.token_ids == one.token_ids
    saved = 0 if name == "gemma3_text" else len(right[0]) + 1
    assert alone_drafted.forwards == one.forwards - saved


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_another_process_says_the_same(
    fitted: Callable[[str, str], Any], elsewhere: dict[str, list[str]], name: str, kind: str
) -> None:
    assert elsewhere[f"{name}-{kind}"] == alone(fitted(name, kind))


@pytest.mark.parametrize("name", FAMILIES)
def test_control_rows_are_learnt_in_both_matrices_and_no_others(
    load: Callable[[str], Backbone], fitted: Callable[[str, str], Any], name: str
) -> None:
    before, after = load(name), fitted(name, "recall").backbone
    learnt = [before.ids.think, before.ids.recall]  # few samples hold all of them
    for get in ("get_input_embeddings", "get_output_embeddings"):
        old_VD, new_VD = (getattr(backbone.model, get)().weight for backbone in (before, after))
        moved_V = (old_VD != new_VD).any(dim=-1)
        assert moved_V[learnt].all()
        others = torch.ones(len(moved_V), dtype=torch.bool)
        others[list(before.ids.new_rows)] = False
        assert not moved_V[others].any()


def test_a_sample_longer_than_learned_positions_stops_the_fit(root: Path, tmp_path: Path) -> None:
    method = method_of("sft", root / "gpt2", tmp_path)
    with pytest.raises(MethodError, match=r"sample \(memory_\w+\) has \d+ tokens, .* has positions for 2048"):
        method.fit([Memory("long", "so " * 800)], SFT)


def test_a_question_longer_than_learned_positions_is_refused(load: Callable[[str], Backbone]) -> None:
    asked = [Context((Message("user", "so " * words),), 100) for words in (1, 700)]
    assert len(prompts_for(load("gpt2"), asked[:1])[0]) == 1
    with pytest.raises(MethodError, match=r"a question has \d+ tokens .* an answer 100, .* positions for 2048"):
        prompts_for(load("gpt2"), asked)
    assert len(prompts_for(load("llama"), asked)[0]) == 2  # rotary positions have no end


# What the logits are beside the head's output: trained as they are decoded.
LOGITS: dict[str, tuple[dict[str, Any], float, float]] = {
    "gemma2": ({"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}, 1.0, 5.0),
    "granite": ({"logits_scaling": 4.0, "embedding_multiplier": 3.0}, 0.25, 0.0),
    "cohere": ({"logit_scale": 0.125}, 0.125, 0.0),
}


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_are_the_models_own(tmp_path: Path, kind: str) -> None:
    settings, scale, softcap = LOGITS[kind]
    backbone = load_backbone(str(save_model(kind, gpt2(), tmp_path, **SIZES, **settings)), "cpu", "float32")
    assert (backbone.facts.logit_scale, backbone.facts.logit_softcap) == (pytest.approx(scale), softcap)
    ids = torch.tensor([[5, 60, 70, 80]])
    model = backbone.model
    with torch.no_grad():
        states = model.model(input_ids=ids).last_hidden_state
        assert torch.allclose(backbone.facts.logits(model.lm_head(states)), model(ids).logits, atol=1e-5)


def test_a_model_for_images_is_read_from_its_text_part(tmp_path: Path) -> None:
    """Its configuration has no size at the top, and layers of other parts have the same names."""
    text = SIZES | {"query_pre_attn_scalar": 8, "vocab_size": 300}
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    image |= {"image_size": 28, "patch_size": 14}
    save_model("gemma3", gpt2(), tmp_path, text_config=text, vision_config=image, mm_tokens_per_image=4)
    backbone = load_backbone(str(tmp_path), "cpu", "float32")
    facts = backbone.facts
    assert (facts.hidden_size, facts.context_length, facts.learned_positions) == (32, 4096, False)
    assert facts.trained_matrices == ("model.language_model.embed_tokens",)
    query = [name for name in facts.query_value_targets if name.endswith("q_proj")]
    assert query == [f"model.language_model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    method: Any = SftMethod(
        MethodSetup(backbone.clone(), LoraTrainConfig(max_tokens=300), folder=tmp_path / "fit")
    )
    method.fit(MEMORIES, SFT)
    trained = method.backbone.model
    assert torch.equal(trained.lm_head.weight, trained.get_input_embeddings().weight)
    before, after = backbone.model.state_dict(), trained.state_dict()
    moved = {key for key, weight in before.items() if not torch.equal(weight, after[key])}
    assert moved and not any("vision" in key for key in moved)


def test_what_no_lora_reaches_is_said(tmp_path: Path) -> None:
    save_model("mixtral", gpt2(), tmp_path, **SIZES, num_local_experts=2)
    facts = load_backbone(str(tmp_path), "cpu", "float32").facts
    assert facts.lora_targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert facts.unadapted == ("gate", "gate_up_proj", "down_proj")


# What is refused, each in one sentence and at load.


def kind_of(kind: str, **settings: Any) -> Callable[[Path], None]:
    return lambda folder: void(save_model(kind, gpt2(), folder, **settings))


def void(_result: object) -> None:
    """So that a lambda returns nothing."""


def encoder_decoder(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=300, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    gpt2().save_pretrained(folder)


def bart(folder: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {f"{side}_{size}": 2 for side in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    config = BartConfig(vocab_size=300, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    BartForConditionalGeneration(config).save_pretrained(folder)
    gpt2().save_pretrained(folder)


def with_template(template: str | None) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        tokenizer = gpt2()
        tokenizer.chat_template = template
        save_model("gpt2", tokenizer, folder, **FAMILIES["gpt2"][1])

    return save


def changed(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        save_family("gpt2", folder)
        change(folder)

    return save


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def halved(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {key: weight for key, weight in weights.items() if ".h.1." not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def endless(folder: Path) -> None:
    tokenizer = byte_level(PLAIN, eos_token=None)
    save_model("gpt2", tokenizer, folder, **FAMILIES["gpt2"][1])


TWICE = "{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}"
SHOUTS = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
UNTIL = "{{ strftime_now(day) }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "running state": (kind_of("mamba", hidden_size=16, num_hidden_layers=1), "kind mamba .* no key-value cache"),
    "no cache": (kind_of("openai-gpt", n_embd=16, n_layer=1, n_head=2), "kind openai-gpt .* no key-value cache"),
    "encoder": (kind_of("bert", **SMALL), "kind bert are not supported: a token sees those behind it"),
    "encoder-decoder": (encoder_decoder, "no causal LM, such as an encoder-decoder"),
    "half of one": (bart, "it is an encoder-decoder, of which a causal LM is one half"),
    "no weights": (changed(lambda f: (f / "model.safetensors").unlink()), r"holds no weights \(\*.safetensors\)"),
    "pickles": (changed(as_pickle), r"pickles \(pytorch_model.bin\), which are never read"),
    "half the weights": (changed(halved), r"lack \d+ tensors \(transformer.h.1."),
    "cut file": (changed(lambda f: (f / "model.safetensors").write_bytes(b"12345678")), "could not be loaded"),
    "no configuration": (changed(lambda f: (f / "config.json").unlink()), "could not be loaded"),
    "no tokenizer": (changed(lambda f: (f / "tokenizer.json").unlink()), "could not be loaded"),
    "small vocabulary": (kind_of("gpt2", padded=-9, **FAMILIES["gpt2"][1]), "257 tokens and .* 248 rows"),
    "no row for the end": (kind_of("gpt2", padded=-1, **FAMILIES["gpt2"][1]), "257 tokens and .* 256 rows"),
    "no template": (with_template(None), "no chat template; choose an instruction-tuned model"),
    "broken template": (with_template("{% for m in messages %}{{"), "chat template cannot write these messages"),
    "failing template": (with_template("{{ messages[0].nothing.at_all }}"), "cannot write these messages"),
    "content left out": (with_template("{{ messages[0]['role'] }}"), "does not write each message once"),
    "content twice": (with_template(TWICE), "does not write each message once"),
    "content rewritten": (with_template(SHOUTS), "gives other ids"),
    "a day that cannot be held": (with_template(UNTIL), "prints today's date"),
    "no end": (endless, "nothing ends an answer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    save, said = REFUSED[case]
    save(tmp_path)
    with pytest.raises(MethodError, match=said) as error:
        load_backbone(str(tmp_path), device="cpu", dtype="float32")
    assert str(error.value).startswith(f"model={tmp_path}: ")
    assert "\n" not in str(error.value)
