"""An exported model folder chats with transformers alone, and says what the method says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from model_script import random_bank

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from methods.recall.export import LOOP, export_model
from methods.recall.generation import AutoregressiveRecall, RecallInterceptor
from tasks.base import Message

NEW = 9


def prompts_of(backbone: Backbone) -> list[list[int]]:
    """One that recalls at once, one that does what it likes."""
    ids = backbone.ids
    asked = encode_prompt(backbone, (Message("user", "Where do the skates go?"),))
    return [asked + encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall]), asked]


@pytest.mark.parametrize(("num_keys", "vectors"), [(1, 1), (3, 1), (1, 3)])
def test_the_folder_generates_what_the_method_generates(
    lively: Backbone, tmp_path: Path, num_keys: int, vectors: int
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    bank = random_bank(lively, num_keys=num_keys)
    if vectors > 1:
        fed = [torch.randn(vectors, lively.hidden_size) for _ in bank.ids]
        bank.write(bank.ids, bank.texts, bank.keys_MKD.clone(), fed)
    export_model(lively, bank, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.get_vocab() == lively.tokenizer.get_vocab()

    prompts = prompts_of(lively)
    interceptor = RecallInterceptor(bank, lively.ids, AutoregressiveRecall())
    expected = generate(lively, prompts, NEW, interceptor=interceptor)
    pad, width = int(tokenizer.pad_token_id), max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    recalled: list[list[dict[str, object]]] = []
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        custom_generate=str(tmp_path / "model"),
        trust_remote_code=True,
        recalled=recalled,
    )
    for row, generated in enumerate(expected):
        assert tuple(output[row, width : width + len(generated.token_ids)].tolist()) == generated.token_ids
    assert expected[0].token_ids[: vectors + 1].count(lively.ids.memory_pad) == vectors
    (event,) = interceptor.events[0]
    assert recalled[0][0]["id"] == bank.ids[event.memory_index]
    assert recalled[0][0]["cosine"] == pytest.approx(event.score, abs=1e-5)


def test_the_loop_needs_nothing_of_this_project() -> None:
    tree = ast.parse(LOOP.read_text(encoding="utf-8"))
    names = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    names |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "torch", "safetensors", "transformers"}


def test_it_runs_only_if_trusted(lively: Backbone, tmp_path: Path) -> None:
    export_model(lively, random_bank(lively), tmp_path / "model")
    with pytest.raises(ValueError, match="trust_remote_code"):
        lively.model.generate(
            input_ids=torch.tensor([[5, 6]]),
            max_new_tokens=2,
            custom_generate=str(tmp_path / "model"),
            trust_remote_code=False,
        )


def test_a_folder_with_other_things_is_left_alone(lively: Backbone, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MethodError, match="not empty"):
        export_model(lively, random_bank(lively), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
