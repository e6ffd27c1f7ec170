"""An exported model folder chats with transformers alone, and says what the method says."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from model_script import FORCED, random_bank
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_pieces, encode_prompt
from methods.decode import Generated, Sampling, generate, serially
from methods.recall.bank import MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig
from methods.setup import MethodSetup
from pipelines.export_folder import LOOP, export_model
from tasks.base import Message

NEW = 14
SAMPLED = Sampling(do_sample=True, temperature=1.7, top_k=40, top_p=0.9)
MEMORIES_SAMPLED = AutoregressiveRecall(
    autorecall_use_sampling=True, temperature=1.5, top_k=5, top_p=0.9, repetition_penalty=1.3
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def exported(
    backbone: Backbone,
    bank: MemoryBank,
    folder: Path,
    recall: AutoregressiveRecall | None = None,
    sampling: Sampling | None = None,
) -> Any:
    """The model as somebody else loads it."""
    export_model(method_of(backbone, bank, recall, sampling), folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def method_of(
    backbone: Backbone,
    bank: MemoryBank,
    recall: AutoregressiveRecall | None = None,
    sampling: Sampling | None = None,
) -> RecallMethod:
    setup = MethodSetup(backbone, sampling=sampling or Sampling())
    method = RecallMethod(setup, RecallConfig(recall=recall or AutoregressiveRecall()))
    method.bank = bank
    return method


@contextmanager
def eager(model: Any, token: int) -> Iterator[None]:
    """In the block the model says this token wherever it is free to."""
    layer = model.get_output_embeddings()
    bias_V = torch.zeros(layer.weight.shape[0]).index_fill(0, torch.tensor([token]), FORCED)
    handle = layer.register_forward_hook(lambda _module, _args, logits: logits + bias_V)
    try:
        yield
    finally:
        handle.remove()


def prompts_of(backbone: Backbone) -> list[list[int]]:
    """One that recalls at once, one that does what it likes."""
    ids = backbone.ids
    asked = encode_prompt(backbone, (Message("user", "Where do the skates go?"),))
    return [asked + encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall]), asked]


def padded(prompts: list[list[int]], pad: int) -> dict[str, Tensor]:
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad] * (width - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
    }


def elsewhere(
    model: Any, prompts: list[list[int]], **options: Any
) -> tuple[list[list[int]], list[list[dict[str, Any]]]]:
    """New tokens of every row, and what it recalled, as somebody with transformers alone gets them."""
    recalled: list[list[dict[str, Any]]] = []
    inputs = padded(prompts, model.generation_config.pad_token_id)
    output = model.generate(
        **inputs,
        max_new_tokens=NEW,
        custom_generate=model.config._name_or_path,
        trust_remote_code=True,
        recalled=recalled,
        **options,
    )
    return output[:, inputs["input_ids"].shape[1] :].tolist(), recalled


def here(
    backbone: Backbone, bank: MemoryBank, recall: AutoregressiveRecall, sampling: Sampling
) -> tuple[list[Generated], RecallMechanism]:
    """A token a forward, as the folder's loop decodes: one draw a token."""
    mechanism = RecallMechanism(bank, backbone, recall, RecallMethod.logit_scale)
    with serially():
        return generate(backbone, prompts_of(backbone), NEW, mechanism=mechanism, sampling=sampling), mechanism


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize(
    ("recall", "sampling", "often"),
    [
        (AutoregressiveRecall(), Sampling(), False),
        (MEMORIES_SAMPLED, Sampling(), False),
        (AutoregressiveRecall(), SAMPLED, True),
        (AutoregressiveRecall(repetition_penalty=5.0), Sampling(), True),
        (MEMORIES_SAMPLED, SAMPLED, True),
        (AutoregressiveRecall(enabled=False), SAMPLED, False),
        (AutoregressiveRecall(enabled=False), Sampling(), True),
    ],
    ids=["greedy", "memories sampled", "tokens sampled", "penalty", "both sampled", "off", "off and often"],
)
def test_the_folder_generates_what_the_method_generates(
    lively: Backbone, folder: Path, vectors: int, recall: AutoregressiveRecall, sampling: Sampling, often: bool
) -> None:
    """Token for token with the same seed, from the folder's own settings, once or many times in an answer."""
    bank = random_bank(lively, num_vectors=vectors)
    model = exported(lively, bank, folder, recall, sampling)
    recall_id = lively.ids.recall
    torch.manual_seed(4)
    with eager(lively.model, recall_id) if often else nullcontext():
        expected, mechanism = here(lively, bank, recall, sampling)
    torch.manual_seed(4)
    with eager(model, recall_id) if often else nullcontext():
        rows, recalled = elsewhere(model, prompts_of(lively))
    for row, generated in zip(rows, expected, strict=True):
        assert tuple(row[: len(generated.token_ids)]) == generated.token_ids
    events = [[(e["id"], e["cosine"]) for e in found] for found in recalled]
    wanted = [[(bank.ids[e.memory_index], e.score) for e in found] for found in mechanism.events]
    assert [[i for i, _ in row] for row in events] == [[i for i, _ in row] for row in wanted]
    assert [c for row in events for _, c in row] == pytest.approx([c for row in wanted for _, c in row], abs=1e-5)
    assert bool(events[0]) == recall.enabled
    if often and recall.enabled:
        assert min(map(len, events)) > 2
        assert len({i for row in events for i, _ in row}) > 1
    if recall.enabled:
        assert rows[0][: vectors + 1].count(lively.ids.memory_pad) == vectors


def test_the_settings_change_what_is_generated(lively: Backbone, folder: Path) -> None:
    """Else nothing above would show that they are read; and an argument goes before the folder."""
    model = exported(lively, random_bank(lively), folder)
    said = []
    for recall in ({}, {"enabled": False}, MEMORIES_SAMPLED.__dict__ | {"top_k": 7}):
        torch.manual_seed(2)
        said.append(elsewhere(model, prompts_of(lively), recall=recall))
    assert [len(recalled[0]) for _, recalled in said[:2]] == [1, 0]
    assert len({str(rows) for rows, _ in said}) == 3
    with pytest.raises(ValueError, match="'topk' is no setting; choose from: enabled"):
        elsewhere(model, prompts_of(lively), recall={"topk": 3})


def test_expanded_rows_recall_each_for_itself(lively: Backbone, folder: Path) -> None:
    """`num_return_sequences` makes rows of one prompt's."""
    model = exported(lively, random_bank(lively), folder, MEMORIES_SAMPLED, SAMPLED)
    rows, recalled = elsewhere(model, prompts_of(lively)[:1], num_return_sequences=3)
    assert len(rows) == len(recalled) == 3
    assert [row[0] for row in rows] == [lively.ids.memory_pad] * 3
    assert min(map(len, recalled)) == 1


def test_beams_are_refused(lively: Backbone, folder: Path) -> None:
    model = exported(lively, random_bank(lively), folder)
    with pytest.raises(ValueError, match="num_beams=2: recall decodes without beams"):
        elsewhere(model, prompts_of(lively), num_beams=2)


class Kept:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.num_ends = 0

    def put(self, value: Tensor) -> None:
        self.values.append(value)

    def end(self) -> None:
        self.num_ends += 1


def test_a_streamer_gets_the_prompt_and_every_step(lively: Backbone, folder: Path) -> None:
    model = exported(lively, random_bank(lively, num_vectors=3), folder)
    streamer = Kept()
    prompts = prompts_of(lively)
    rows, _ = elsewhere(model, prompts, streamer=streamer)
    prompt, *steps = streamer.values
    assert torch.equal(prompt, padded(prompts, model.generation_config.pad_token_id)["input_ids"])
    assert torch.stack(steps, dim=1).tolist() == rows
    assert streamer.num_ends == 1


def test_the_librarys_streamer_ends(lively: Backbone, folder: Path) -> None:
    """Read in this thread while another generates; the pad of a memory is not in the text."""
    model, tokenizer = exported(lively, random_bank(lively), folder), AutoTokenizer.from_pretrained(folder)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
    found: list[Any] = []
    thread = Thread(target=lambda: found.append(elsewhere(model, prompts_of(lively)[:1], streamer=streamer)))
    thread.start()
    text = "".join(streamer)
    thread.join()
    ((row,), _) = found[0]
    assert lively.ids.memory_pad in row
    assert text == tokenizer.decode(row, skip_special_tokens=True)
    assert len(text) > 4


def test_a_streamer_ends_after_an_error(lively: Backbone, folder: Path) -> None:
    model = exported(lively, random_bank(lively), folder)
    streamer = Kept()
    with pytest.raises(ValueError, match="no setting"):
        elsewhere(model, prompts_of(lively), streamer=streamer, recall={"x": 1})
    assert streamer.num_ends == 1


def test_a_model_loaded_with_its_loop_needs_no_further_word(lively: Backbone, folder: Path) -> None:
    exported(lively, random_bank(lively), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    recalled: list[Any] = []
    inputs = padded(prompts_of(lively)[:1], 0)
    model.generate(inputs["input_ids"], max_new_tokens=3, recalled=recalled)
    assert [len(row) for row in recalled] == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_weights_are_the_exports_in_any_type(lively: Backbone, folder: Path, dtype: torch.dtype) -> None:
    exported(lively, random_bank(lively), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    _rows, recalled = elsewhere(model, prompts_of(lively))
    assert len(recalled[0]) == 1


def test_other_weights_are_refused(lively: Backbone, pristine: Backbone, folder: Path) -> None:
    """Even where a single matrix was trained on a little; and the model's own folder goes on working."""
    model = exported(lively, random_bank(lively), folder)
    assert elsewhere(model, prompts_of(lively))[1][0]
    tuned = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        tuned.model.layers[1].self_attn.q_proj.weight *= 1.05
    other = AutoModelForCausalLM.from_pretrained(folder)
    other.load_state_dict(pristine.model.state_dict())
    for wrong in (tuned, other):
        with pytest.raises(ValueError, match=r"model: its memories were exported with other weights .* load the"):
            elsewhere(wrong, prompts_of(lively))
    assert elsewhere(model, prompts_of(lively))[1][0]


def test_a_bank_that_is_changed_is_read_again(lively: Backbone, folder: Path) -> None:
    model = exported(lively, random_bank(lively), folder)
    elsewhere(model, prompts_of(lively))
    bank = random_bank(lively)
    bank.texts = ["changed"] * len(bank)
    export_model(method_of(lively, bank), folder, overwrite=True)
    assert elsewhere(model, prompts_of(lively))[1][0][0]["text"] == "changed"


def test_a_model_from_elsewhere_names_the_folder(lively: Backbone, folder: Path, tmp_path: Path) -> None:
    exported(lively, random_bank(lively), folder)
    lively.model.save_pretrained(tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    inputs = padded(prompts_of(lively)[:1], 0)
    options = {"max_new_tokens": 2, "custom_generate": str(folder), "trust_remote_code": True}
    with pytest.raises(ValueError, match=r"copy: holds no bank\.json.*bank_folder="):
        model.generate(**inputs, **options)
    recalled: list[Any] = []
    model.generate(**inputs, **options, bank_folder=str(folder), recalled=recalled)
    assert len(recalled[0]) == 1


def test_what_was_set_for_generation_stays_set(lively: Backbone, folder: Path) -> None:
    """A user's own biases and suppressed tokens, beside the folder's."""
    model = exported(lively, random_bank(lively), folder)
    (free,), _ = elsewhere(model, prompts_of(lively)[1:])
    (suppressed,), _ = elsewhere(model, prompts_of(lively)[1:], suppress_tokens=free)
    assert not set(free) & set(suppressed)
    (biased,), _ = elsewhere(model, prompts_of(lively)[1:], sequence_bias={(77,): FORCED})
    assert set(biased) == {77}


def test_a_method_exports_the_settings_that_it_answers_with(lively: Backbone, folder: Path) -> None:
    """The scale of its recipe, its switch, its sampling; an arm that knows the gold answers has none."""
    method = method_of(lively, random_bank(lively), AutoregressiveRecall(top_k=3), SAMPLED)
    method.enable_recall(False)
    export_model(method, folder)
    written = json.loads((folder / "recall.json").read_text(encoding="utf-8"))
    expected = {"logit_scale": 20.0, "top_k": 3, "enabled": False}
    assert {key: written[key] for key in expected} == pytest.approx(expected)
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    wanted = vars(SAMPLED)
    assert {key: generation[key] for key in wanted} == wanted
    arm = RecallMethod(method.setup, method.config, "oracle_vector", choose=lambda _ctx, _bank: [0])
    arm.bank = method.bank
    with pytest.raises(MethodError, match="oracle_vector: chooses by the gold answers"):
        export_model(arm, folder, overwrite=True)
    method.bank = random_bank(lively, num_vectors=0)
    with pytest.raises(MethodError, match="recall: memories that are fed as their text have no export"):
        export_model(method, folder, overwrite=True)


def test_an_export_leaves_the_model_as_it_was(lively: Backbone, folder: Path) -> None:
    before = lively.model.generation_config.to_dict()
    exported(lively, random_bank(lively), folder, sampling=SAMPLED)
    assert lively.model.generation_config.to_dict() == before


def test_the_loop_needs_nothing_of_this_project() -> None:
    tree = ast.parse(LOOP.read_text(encoding="utf-8"))
    names = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    names |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"inspect", "json", "pathlib", "weakref", "torch", "safetensors", "transformers"}


def test_it_runs_only_if_trusted(lively: Backbone, folder: Path) -> None:
    exported(lively, random_bank(lively), folder)
    with pytest.raises(ValueError, match="trust_remote_code"):
        lively.model.generate(
            input_ids=torch.tensor([[5, 6]]),
            max_new_tokens=2,
            custom_generate=str(folder),
            trust_remote_code=False,
        )


def test_nothing_is_overwritten_unasked(lively: Backbone, folder: Path) -> None:
    method = method_of(lively, random_bank(lively))
    bank = method.fitted_bank()
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(MethodError, match="not empty and holds no exported model; name a new folder"):
            export_model(method, folder, overwrite=overwrite)
    with pytest.raises(MethodError, match=r"notes\.txt is a file; name a new folder"):
        export_model(method, folder / "notes.txt")
    with pytest.raises(MethodError, match=r"x: cannot be written \(.*\); name another folder"):
        export_model(method, folder / "notes.txt" / "x")
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    export_model(method, folder)
    bank.forget(bank.ids[1:])
    with pytest.raises(MethodError, match=r"holds an exported model; .* overwrite=true"):
        export_model(method, folder)
    assert len(json.loads((folder / "bank.json").read_text(encoding="utf-8"))["ids"]) == 7
    export_model(method, folder, overwrite=True)
    assert len(json.loads((folder / "bank.json").read_text(encoding="utf-8"))["ids"]) == 1
