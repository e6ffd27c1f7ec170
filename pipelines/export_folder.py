"""A fitted recall model as an ordinary model folder: for somebody with transformers alone.

config.json, model.safetensors, tokenizer files    the base with both steps' LoRA merged
bank.safetensors, bank.json                         the memories, and a sample of the weights that they belong to
recall.json                                         how a memory is chosen
custom_generate/generate.py                         the recall loop, without this project
README.md                                           how to chat with it
"""

from __future__ import annotations

import copy
import json
import runpy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.arms import ARMS
from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import SYSTEM
from methods.decode import Sampling
from methods.recall.bank import MemoryBank
from methods.recall.method import RecallMethod

LOOP = Path(__file__).parent / "exported" / "generate.py"
MARK = "bank.json"  # of a folder that holds an export

CARD = """---
library_name: transformers
tags: [recall, memory, custom_generate]
---
# {name} with {count} memories

A causal LM that recalls: where it writes `<recall>`, the state there picks one of {count} memories, whose
vector (or vectors, one after another) is fed in place of the next embedding and decoded. Chat with it from disk:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [
    {{"role": "system", "content": "{system}"}},
    {{"role": "user", "content": "..."}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
recalled = []
output = model.generate(
    **inputs,
    max_new_tokens=192,
    custom_generate=folder,
    trust_remote_code=True,
    recalled=recalled,
)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))
print(recalled)
```

`trust_remote_code` runs `custom_generate/generate.py` of this folder and nothing else; read it first.

- **Streaming**: `streamer=TextStreamer(tokenizer, skip_prompt=True)`, or a `TextIteratorStreamer`, as anywhere.
- **How tokens are chosen** stands in `generation_config.json`: {tokens}. Arguments of `generate` go before it.
- **How memories are chosen** stands in `recall.json`: {memories}. `recall={{"enabled": False}}` as an argument of
  `generate` changes it for one call.
- The memories are vectors of this model with these weights: with others, or quantised ones, `generate` refuses.
"""


def export_model(method: RecallMethod, folder: Path, overwrite: bool = False) -> None:
    """Writes the folder, with which tokens and memories are chosen as the method does.

    overwrite: an earlier export may lie there. Raises MethodError where something else does, where it cannot be
    written, for a control arm, and for memories without vectors.
    """
    bank = method.fitted_bank()
    if method.name in ARMS:
        raise MethodError(f"{method.name}: chooses by the gold answers, which no export has; export recall")
    if not bank.num_vectors:
        raise MethodError(f"{method.name}: memories that are fed as their text have no export; export recall")
    check_room(folder, overwrite)
    settings = asdict(method.recall) | {"logit_scale": method.logit_scale}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(method.backbone, bank, folder, settings, method.setup.sampling)
    except OSError as error:
        raise MethodError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error


def check_room(folder: Path, overwrite: bool) -> None:
    """Raises MethodError where the folder holds what may not be written over."""
    if folder.exists() and not folder.is_dir():
        raise MethodError(f"{folder} is a file; name a new folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARK).exists():
        raise MethodError(f"{folder} is not empty and holds no exported model; name a new folder")
    if not overwrite:
        raise MethodError(f"{folder} holds an exported model; name a new folder, or say overwrite=true")


def _write(
    backbone: Backbone, bank: MemoryBank, folder: Path, settings: dict[str, object], sampling: Sampling
) -> None:
    from safetensors.torch import load_file, save_file

    sample_weights = runpy.run_path(str(LOOP))["sample_weights"]  # as it will be taken there
    with _decoding(backbone, sampling) as model:
        model.save_pretrained(str(folder))
    backbone.tokenizer.save_pretrained(str(folder))
    bank.save(folder)
    tensors = load_file(str(folder / "bank.safetensors"))
    save_file(tensors | {"weights": sample_weights(backbone.model)}, str(folder / "bank.safetensors"))
    meta = json.loads((folder / MARK).read_text(encoding="utf-8"))
    meta |= {"recall_token_id": backbone.ids.recall, "memory_pad_token_id": backbone.ids.memory_pad}
    _write_json(folder / MARK, meta)
    _write_json(folder / "recall.json", settings)
    (folder / "custom_generate").mkdir(exist_ok=True)
    shutil.copyfile(LOOP, folder / "custom_generate" / "generate.py")
    card = CARD.format(
        name=backbone.name,
        count=len(bank),
        system=SYSTEM,
        tokens="sampled" if sampling.do_sample else "the best one, greedily",
        memories="sampled" if settings["autorecall_use_sampling"] else "the best one, greedily",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_json(path: Path, body: dict[str, object]) -> None:
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8")


@contextmanager
def _decoding(backbone: Backbone, sampling: Sampling) -> Iterator[Any]:
    """The model, with a generation_config that decodes as `methods.decode.generate` does; then its own again."""
    model = backbone.model
    own = model.generation_config
    config = model.generation_config = copy.deepcopy(own)
    config.pad_token_id, config.eos_token_id = int(backbone.tokenizer.pad_token_id), list(backbone.facts.stop_ids)
    config.do_sample = sampling.do_sample
    for name in ("temperature", "top_k", "top_p"):
        setattr(config, name, getattr(sampling, name) if sampling.do_sample else None)
    try:
        yield model
    finally:
        model.generation_config = own
