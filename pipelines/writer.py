"""A plain model that goes on from chats: `python -m pipelines.writer model=<name>`, for `tasks.ask`.

Reads a line of JSON ({"messages": [...], "max_new_tokens": n}) and writes one ({"text", "prompt_tokens",
"new_tokens"}, or {"error"}), until its input ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from methods.backbone import PACKAGED_LM, Backbone, load_backbone
from methods.base import MethodError
from methods.chat import encode_prompt
from pipelines.progress import quiet_libraries
from tasks.base import Message


def reply(backbone: Backbone, body: Mapping[str, Any]) -> dict[str, Any]:
    """The greedy answer to a chat, without control tokens. Raises MethodError where it does not fit the window."""
    ids = encode_prompt(backbone, [Message(m["role"], m["content"]) for m in body["messages"]])
    room = backbone.facts.context_length - len(ids)
    if room < 1:
        raise MethodError(
            f"model={backbone.name}: a prompt has {len(ids)} tokens and its window {backbone.facts.context_length}"
        )
    prompt_BT = torch.tensor([ids], device=backbone.device)
    with torch.no_grad():
        output_BT = backbone.model.generate(
            input_ids=prompt_BT,
            attention_mask=torch.ones_like(prompt_BT),
            max_new_tokens=min(room, int(body["max_new_tokens"])),
            do_sample=False,
            eos_token_id=list(backbone.facts.stop_ids),
            pad_token_id=backbone.tokenizer.pad_token_id,
            suppress_tokens=list(backbone.ids.new_rows),
        )
    new = output_BT[0, len(ids) :].tolist()
    text = backbone.tokenizer.decode([i for i in new if i not in backbone.control_ids])
    return {"text": text, "prompt_tokens": len(ids), "new_tokens": len(new)}


def replies(lines: Iterable[str], model: str) -> Iterator[dict[str, Any]]:
    """One a line; the model is loaded at the first."""
    backbone: Backbone | None = None
    for line in lines:
        try:
            backbone = backbone or load_backbone(model)
            yield reply(backbone, json.loads(line))
        except MethodError as error:
            yield {"error": " ".join(str(error).split())}


def main() -> None:
    quiet_libraries()
    (model,) = [word.removeprefix("model=") for word in sys.argv[1:]] or [PACKAGED_LM]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    for found in replies(sys.stdin, model):
        out.write(json.dumps(found) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
