"""Losses and gradients of one batch: as written, or recorded and replayed; in halves where memory is too little.

On a card a batch is filled up to one of few shapes, and all that is computed of it is recorded once a shape
(methods.graphs). Gradients are summed into tensors that stay where they are. Nothing here waits for the card.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.backbone import CPU, too_little
from methods.base import MethodError
from methods.batches import Batch, BatchShape, Counts, batch_shape, collate, counts, share_of
from methods.graphs import Recorded, new_pool, recordable
from methods.samples import Sample

log = logging.getLogger(__name__)

Losses = dict[str, Tensor]


class Step:
    """What a batch's samples add to the gradients.

    module: samples' `Batch` -> losses, as the accelerator prepared it; `memory` is the bank's seat in it, or None.
    scale: of each loss in their sum. multiple: of tokens, that sizes are filled up to where nothing is recorded.
    """

    def __init__(
        self,
        module: nn.Module,
        memory: Any,
        accelerator: Any,
        scale: Mapping[str, float],
        device: torch.device,
        *,
        batch_tokens: int,
        multiple: int,
        pad_token_id: int,
    ) -> None:
        self.module, self.memory, self.accelerator, self.scale = module, memory, accelerator, scale
        self.device, self.batch_tokens, self.multiple, self.pad = device, batch_tokens, multiple, pad_token_id
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.parts = 1  # that a batch is computed in
        self.records = recordable(device) and self.world == 1
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._sums = {p: torch.zeros_like(p) for p in self._parameters} if self.records else {}
        self._idle: set[nn.Parameter] = set()  # had no part in anything since the last step
        self._forget()

    def _forget(self) -> None:
        self._shapes: dict[BatchShape, tuple[Batch, Recorded[Losses]]] = {}
        self._pool = new_pool(self.device) if self.records else None

    def __call__(self, samples: Sequence[Sample]) -> Losses:
        """-> the batch's losses, or this process's share of them, without a graph.

        Raises MethodError where the memory does not hold a single sample.
        """
        adds_up = self.accelerator.gradient_accumulation_steps > 1
        before = [p.grad.clone() if adds_up and p.grad is not None else None for p in self._parameters]
        while True:
            try:
                return self._in_parts(samples)
            except torch.OutOfMemoryError as error:
                short = error.with_traceback(None)  # whose frames would hold what the attempt had computed
            self._halve(samples, short)
            for parameter, kept in zip(self._parameters, before, strict=True):
                if kept is not None and self.records:
                    kept = self._sums[parameter].copy_(kept)
                parameter.grad = kept

    def close(self) -> None:
        """Lets go of all that was recorded."""
        self._forget()
        self._pool = None

    def settle(self) -> None:
        """Before the optimiser's step: what had no part in its batches has no gradient, not one of zeros."""
        for parameter in self._idle:
            parameter.grad = None

    def _halve(self, samples: Sequence[Sample], error: Exception) -> None:
        if self.parts >= len(samples) or self.world > 1:
            longest = max(map(len, samples))
            what = (
                f"a training sample of {longest} tokens" if self.world == 1 else "this process's share of a batch"
            )
            raise MethodError(
                f"{too_little(self.device)}, and {what} does not fit beside the model; free it, lower "
                "train.batch_tokens or fit_processes, or take a smaller model"
            ) from error
        self.parts *= 2
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "%s: from here on each batch is computed in %d parts; the training stays the same",
            too_little(self.device),
            self.parts,
        )

    def _in_parts(self, samples: Sequence[Sample]) -> Losses:
        whole, count = counts(samples, self.world), min(self.parts, len(samples))
        if count == 1:
            return self._of(samples, whole)
        losses: Losses = {}
        for first in range(count):
            for name, value in self._of(samples[first::count], whole).items():
                losses[name] = losses[name] + value if name in losses else value
        return losses

    def _of(self, samples: Sequence[Sample], whole: Counts) -> Losses:
        """Of a batch, or of a part, whose losses are divided as the whole's."""
        if self.records:
            return self._replayed(samples, whole)
        mine = share_of(samples, self.rank, self.world)
        return self._add_gradients(collate(mine, self.pad, CPU, self.multiple, whole=whole).to(self.device))

    def _replayed(self, samples: Sequence[Sample], whole: Counts) -> Losses:
        """In a batch that is filled up to its shape, by what was recorded of that shape."""
        num_pads = 0 if self.memory is None else self.memory.values_MPD.shape[1]
        shape = batch_shape(samples, self.batch_tokens // self.parts, self.memory is not None, num_pads)
        filled = replace(
            collate(samples, self.pad, CPU, shape=shape),
            lm_weight=torch.tensor(whole.lm_weight or 1.0),
            num_asked=torch.tensor(float(whole.num_asked) or 1.0),
        )
        if shape not in self._shapes:
            kept = filled.to(self.device)
            compute = partial(self._add_gradients, kept)
            self._shapes[shape] = kept, Recorded(compute, self.device, "a training step", self._pool)
        else:
            self._shapes[shape][0].take(filled)
        fresh = [p for p in self._parameters if p.grad is None]
        if fresh:
            torch._foreach_zero_([self._sums[p] for p in fresh])
            for parameter in fresh:
                parameter.grad = self._sums[parameter]
            self._idle.update(set() if self.memory is None else self.memory.parameters())
        asks, learns = any(s.asks for s in samples), any(s.learnt for s in samples)
        if self.memory is not None:
            self._idle -= {self.memory.keys_MD} if asks else set()
            self._idle -= {self.memory.values_MPD} if any(s.pad_position >= 0 for s in samples) else set()
        losses = self._shapes[shape][1]()
        there = {"lm": learns, "retrieval": asks}
        return {name: value.clone() for name, value in losses.items() if there[name]}

    def _add_gradients(self, batch: Batch) -> Losses:
        with self.accelerator.autocast():
            losses: Losses = self.module(batch)
        loss = sum(self.scale[name] * value for name, value in losses.items())
        self.accelerator.backward(loss)
        return {name: value.detach() for name, value in losses.items()}
