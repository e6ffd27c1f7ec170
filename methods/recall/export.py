"""A fitted recall model as an ordinary model folder: for somebody with transformers alone.

config.json, model.safetensors, tokenizer files    the base with both steps' LoRA merged
bank.safetensors, bank.json                         the memories
custom_generate/generate.py                         the recall loop, without this project
README.md                                           how to chat with it
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import SYSTEM
from methods.recall.bank import MemoryBank

LOOP = Path(__file__).parent / "exported" / "generate.py"

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
    do_sample=False,
    custom_generate=folder,
    trust_remote_code=True,
    recalled=recalled,
)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))
print(recalled)
```

`trust_remote_code` runs `custom_generate/generate.py` of this folder and nothing else; read it first.
"""


def export_model(backbone: Backbone, bank: MemoryBank, folder: Path) -> None:
    """Writes the folder. Raises MethodError where something other than an export lies there."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "bank.json").exists():
        raise MethodError(f"{folder} is not empty and holds no exported model; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    model = backbone.model
    model.generation_config.pad_token_id = int(backbone.tokenizer.pad_token_id)
    model.generation_config.eos_token_id = backbone.ids.eos
    model.save_pretrained(str(folder))
    backbone.tokenizer.save_pretrained(str(folder))
    bank.save(folder)
    meta_file = folder / "bank.json"
    meta = json.loads(meta_file.read_text(encoding="utf-8"))
    meta |= {"recall_token_id": backbone.ids.recall, "memory_pad_token_id": backbone.ids.memory_pad}
    meta_file.write_text(json.dumps(meta, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "custom_generate").mkdir(exist_ok=True)
    shutil.copyfile(LOOP, folder / "custom_generate" / "generate.py")
    card = CARD.format(name=backbone.name, count=len(bank), system=SYSTEM)
    (folder / "README.md").write_text(card, encoding="utf-8")
