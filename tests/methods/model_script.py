"""Makes a model say what a test wants, and writes down what it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.decode import serially
from methods.recall.bank import MemoryBank

EVERY_ROW = -1
FORCED = 1e6


@contextmanager
def scripted(backbone: Backbone, script: Mapping[tuple[int, int], int]) -> Iterator[None]:
    """(row, step) -> the token whose logit wins there; step 0 is the first new token. One generation each.

    Control tokens and the stop token come from the script alone. Nothing is drafted, so that a step is a token.
    """
    step = 0
    unasked = [*backbone.ids.new_rows, backbone.ids.eos]

    def push(_module: Any, _args: Any, logits_BTV: Tensor) -> Tensor:
        nonlocal step
        logits_BTV = logits_BTV.clone()
        logits_BTV[..., unasked] = -FORCED
        for (row, when), token in script.items():
            if when == step:
                rows = slice(None) if row == EVERY_ROW else row
                logits_BTV[rows, -1, token] = FORCED
        step += 1
        return logits_BTV

    handle = backbone.model.get_output_embeddings().register_forward_hook(push)
    try:
        with serially():
            yield
    finally:
        handle.remove()


def says(backbone: Backbone, *pieces: str | int) -> dict[tuple[int, int], int]:
    """A script in which every row says the pieces from its first new token on; text is one token a byte."""
    ids = [
        i for piece in pieces for i in ([piece] if isinstance(piece, int) else backbone.tokenizer(piece).input_ids)
    ]
    return {(EVERY_ROW, step): token for step, token in enumerate(ids)}


@dataclass
class Feed:
    """What the decoder was fed, one entry a forward; entry 0 is the prompt."""

    input_ids: list[Tensor | None] = field(default_factory=list)
    inputs_embeds: list[Tensor | None] = field(default_factory=list)


@contextmanager
def spied(backbone: Backbone) -> Iterator[Feed]:
    feed = Feed()

    def note(_module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        assert not args
        feed.input_ids.append(kwargs.get("input_ids"))
        feed.inputs_embeds.append(kwargs.get("inputs_embeds"))

    handle = backbone.model.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield feed
    finally:
        handle.remove()


def random_bank(backbone: Backbone, size: int = 7, seed: int = 0, num_vectors: int = 1) -> MemoryBank:
    """Memories m0, m1, ... with keys and values that differ, off a centre, with a gain of 3."""
    generator = torch.Generator().manual_seed(seed)
    width = backbone.facts.hidden_size
    bank = MemoryBank(torch.randn(width, generator=generator) * 0.1, 3.0, backbone.fingerprint)
    if size:  # nothing cannot be written
        keys_MD = torch.randn(size, width, generator=generator)
        fed_MPD = F.normalize(torch.randn(size, num_vectors, width, generator=generator), dim=-1) * bank.gain
        names = [f"m{i}" for i in range(size)]
        bank.write(names, [f"Text of memory {i}." for i in range(size)], keys_MD, list(fed_MPD))
    return bank


@torch.no_grad()
def last_state(backbone: Backbone, input_ids: list[int]) -> Tensor:
    """(D,) last hidden state after the ids, in one forward of the whole sequence."""
    return backbone.model.model(input_ids=torch.tensor([input_ids])).last_hidden_state[0, -1]
