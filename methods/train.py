"""The one training loop: LoRA on a causal LM, with memory vectors injected where samples say so.

The budget is counted in non-padding forward tokens, so methods with different sequence lengths are
trained equally; the learning rate follows the share of the budget that is spent.

Shapes: B batch, T tokens, D hidden, V vocabulary, M memories.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods import checkpoint, control_rows
from methods.backbone import Backbone, load_adapter
from methods.base import MethodError
from methods.batches import Batch, counts, padding_multiple
from methods.checkpoint import load_checkpoint, save_checkpoint
from methods.graphs import as_written
from methods.lora import fused
from methods.packing import hidden_states, packing
from methods.samples import IGNORE, Sample
from methods.step import Step

Progress = Callable[[str, int, int], None]  # stage, tokens done, tokens in all
TAU = 0.05  # memory logits are cosine / tau in training
VECTOR_RATE = 10.0  # learning rate of memory vectors, in those of the weights
WARMUP = 0.1  # share of the budget
MAX_GRAD_NORM = 1.0
READ_EVERY = 50  # steps between looks at the losses


def no_progress(stage: str, done: int, total: int) -> None:
    """Progress that shows nothing."""


@dataclass(frozen=True)
class LoraTrainConfig:
    """How one stage is trained."""

    max_tokens: int = 150_000  # budget: non-padding forward tokens, over all stages of a method
    learning_rate: float = 2e-3
    batch_tokens: int = 384  # with padding; a longer sample is a batch of its own
    gradient_accumulation_steps: int = 1
    lora_rank: int = 16  # alpha is twice that
    seed: int = 0


@dataclass
class TrainLog:
    """What a stage cost and how its losses went."""

    forward_tokens: int = 0
    optimizer_steps: int = 0
    seconds: float = 0.0  # of all attempts
    earlier_s: float = 0.0  # of them, those of attempts that were cut
    losses: dict[str, list[float]] = field(default_factory=dict)
    samples: Counter[str] = field(default_factory=Counter)  # by source

    def add(self, **losses: float) -> None:
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)


class MemoryTerm(nn.Module):
    """What a memory bank lends to training: vectors to inject and the memory head's loss.

    keys_MD, values_MPD: unit vectors, to be found by and P to be fed one after another, normalised again at every
    use; each is trained with the weights where its flag says so. Values are injected times the gain.
    weight: of the retrieval loss beside the tokens'. kind_M: of each its kind, a number; no question tells those
    of a kind apart, which therefore are no negatives for each other.
    """

    def __init__(
        self,
        keys_MD: Tensor,
        values_MPD: Tensor,
        gain: float,
        *,
        weight: float = 1.0,
        train_keys: bool = False,
        train_values: bool = False,
        kind_M: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.keys_MD = nn.Parameter(keys_MD.clone(), requires_grad=train_keys)
        self.values_MPD = nn.Parameter(values_MPD.clone(), requires_grad=train_values)
        self.gain = gain
        self.weight = weight
        self.kind_M = kind_M

    def vectors(self, index_N: Tensor) -> Tensor:
        """(N, P, D): what is fed under the pads."""
        return F.normalize(self.values_MPD[index_N], dim=-1) * self.gain

    def retrieval_loss(self, query_ND: Tensor, index_N: Tensor) -> Tensor:
        """Summed cross-entropies of cosine / tau over the bank (InfoNCE, arXiv:1807.03748); IGNORE has none."""
        with torch.autocast(query_ND.device.type, enabled=False):  # siblings differ by less than bf16 tells apart
            query_ND = F.normalize(query_ND.float(), dim=-1)
            logits_NM = query_ND @ F.normalize(self.keys_MD, dim=-1).T / TAU
        if self.kind_M is not None:
            own_N1 = index_N.clamp(min=0)[:, None]
            twins_NM = (self.kind_M[own_N1] == self.kind_M).scatter(1, own_N1, False)
            logits_NM = logits_NM.masked_fill(twins_NM, float("-inf"))
        return F.cross_entropy(logits_NM, index_N, ignore_index=IGNORE, reduction="sum")


class MemoryLM(nn.Module):
    """A causal LM with injected vectors and two losses, as one module so that Accelerate can wrap it.

    memory: the bank's seat in training, or None where a method has none. logits: of the head's output.
    """

    def __init__(
        self, model: Any, memory: MemoryTerm | None, logits: Callable[[Tensor], Tensor] = Tensor.float
    ) -> None:
        super().__init__()
        self.model = model
        self.logits = logits
        self.memory = memory

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """-> {"lm": weighted mean over tokens, "retrieval": mean cross-entropy over the bank}, if present."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        embeds_ND = self._injected(control_rows.embed(base.get_input_embeddings(), batch.input_ids_N), batch)
        hidden_ND = hidden_states(base.base_model, embeds_ND, batch)
        losses: dict[str, Tensor] = {}
        if len(batch.labels_L):  # the head runs on the states that predict a label only
            logits_LV = self.logits(control_rows.head(base.get_output_embeddings(), hidden_ND[batch.predicting_L]))
            losses_L = F.cross_entropy(logits_LV, batch.labels_L, reduction="none")
            losses["lm"] = (losses_L * batch.weights_L).sum() / batch.lm_weight
        if len(batch.memory_index_Q) and self.memory is not None:
            query_QD = hidden_ND[batch.asking_Q].float()
            losses["retrieval"] = self.memory.retrieval_loss(query_QD, batch.memory_index_Q) / batch.num_asked
        return losses or {"lm": hidden_ND.sum() * 0.0}  # other processes wait for this one's gradient

    def _injected(self, embeds_ND: Tensor, batch: Batch) -> Tensor:
        """The embeddings with memory vectors under their pads."""
        if not len(batch.fed_index_I):
            return embeds_ND
        assert self.memory is not None
        vectors_IPD = self.memory.vectors(batch.fed_index_I).to(embeds_ND)
        pads_IP = batch.injected_I[:, None] + torch.arange(vectors_IPD.shape[1], device=embeds_ND.device)
        return embeds_ND.index_put((pads_IP,), vectors_IPD)


def _schedule(share: float) -> float:
    """Linear warm-up, then linear to zero, over the share of the budget spent."""
    return share / WARMUP if share < WARMUP else max(0.0, (1.0 - share) / (1.0 - WARMUP))


def train_lora(
    backbone: Backbone,
    epochs: Iterator[list[list[Sample]]],
    config: LoraTrainConfig,
    *,
    stage: str,
    target_modules: Sequence[str] = (),
    memory: MemoryTerm | None = None,
    progress: Progress = no_progress,
    on_epoch_end: Callable[[int], None] | None = None,
    adapter: Path | None = None,
    adapter_to: Path | None = None,
    checkpoints: Path | None = None,
) -> TrainLog:
    """Trains a LoRA on `backbone.model` until the token budget is spent, saves it and merges it.

    adapter: one that the training begins with, of this shape; None: a new one, which changes nothing yet.
    adapter_to: a folder that receives the adapter in PEFT's format, so that `merge_adapters` can restore
    the weights later for a few per cent of their size. checkpoints: a folder in which the state is kept as
    training goes (`methods.checkpoint.EVERY_S`) and at its end; a stage that was killed goes on from there, with
    the samples that it would have drawn. Whoever names the folder removes it once the fit is saved.

    on_epoch_end: is told how many epochs are over; the adapter is inside `backbone.model` then.

    epochs: yields batches of samples, one list an epoch, freshly drawn each time. The control tokens'
    rows are trained in the embedding and the head, tied or not; every other weight stays as it is.
    target_modules: names of linear layers (methods.model_facts); (): all of the decoder's.

    Under `torchrun` the processes share each batch (`share_of`): more devices make a fit faster, not different.
    Each must be given the same `epochs`; the first one alone saves.

    Raises MethodError where a loss is no number; checkpoints are from before.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import set_seed
    from peft import LoraConfig, get_peft_model

    set_seed(config.seed)
    started = time.perf_counter()
    accelerator = Accelerator(
        mixed_precision="bf16" if backbone.dtype is torch.bfloat16 else "no",
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        cpu=backbone.device.type == "cpu",
        device_placement=False,  # everything stays on the model's own device, whichever card that is
        # A batch need not use every parameter: the bank's vectors have no part in plain conversations.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if adapter is None:
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            lora_dropout=0.0,
            target_modules=list(target_modules or backbone.facts.lora_targets),
            fan_in_fan_out=backbone.facts.fan_in_fan_out,
            trainable_token_indices={n: list(backbone.ids.new_rows) for n in backbone.facts.trained_matrices},
            task_type="CAUSAL_LM",
        )
        peft_model: Any = get_peft_model(backbone.model, lora)
    else:
        peft_model = load_adapter(backbone.model, adapter, trainable=True)
    module = MemoryLM(peft_model, memory, backbone.facts.logits)
    weights = [p for p in peft_model.parameters() if p.requires_grad]
    groups = [{"params": weights, "peak": config.learning_rate}]
    vectors = [p for p in memory.parameters() if p.requires_grad] if memory is not None else []
    if vectors:
        groups.append({"params": vectors, "peak": VECTOR_RATE * config.learning_rate})
    fused_update = True if backbone.device.type == "cuda" else None
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=fused_update)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    wrapped.train()
    scale = {"lm": 1.0, "retrieval": 1.0 if memory is None else memory.weight}
    result = TrainLog()
    step = Step(
        wrapped,
        memory,
        accelerator,
        scale,
        backbone.device,
        batch_tokens=config.batch_tokens,
        multiple=padding_multiple(backbone.dtype, backbone.device),
        pad_token_id=int(backbone.tokenizer.pad_token_id),
    )
    kept_weights = [*weights, *(memory.parameters() if memory is not None else ())]
    epoch = behind = 0  # epochs trained on, and batches of the next one
    kept = load_checkpoint(checkpoints, kept_weights, optimizer) if checkpoints else None
    if kept is not None:
        epoch, behind = kept.pop("epoch"), kept.pop("batches")
        result = TrainLog(**kept | {"samples": Counter(kept["samples"]), "earlier_s": kept["seconds"]})
        for _ in range(epoch if result.forward_tokens < config.max_tokens else 0):
            next(epochs, None)
    losses = _Losses(accelerator, stage, result)
    last_kept = time.perf_counter()

    def keep() -> None:
        """The state as it is, on disk, once its losses are seen to be numbers."""
        nonlocal last_kept
        losses.read()
        if checkpoints and accelerator.process_index == 0:
            seconds = result.seconds + time.perf_counter() - started
            counted = {**vars(result), "seconds": seconds, "epoch": epoch, "batches": behind}
            save_checkpoint(checkpoints, kept_weights, optimizer, counted)
        last_kept = time.perf_counter()

    # The same computation with less overhead; `benchmarks/train_step.py` sets its parts beside the stock ones
    with packing(backbone.model), fused(peft_model):
        while result.forward_tokens < config.max_tokens:
            batches = next(epochs, None)
            if not batches:  # the data ended, or there is none: an empty epoch would go on for ever
                break
            check_positions(backbone, batches)
            for samples in batches[behind:]:
                num_tokens = sum(map(len, samples))
                with accelerator.accumulate(wrapped):
                    for group in optimizer.param_groups:
                        share = (result.forward_tokens + num_tokens / 2) / config.max_tokens
                        group["lr"] = group["peak"] * _schedule(min(share, 1.0))
                    losses.add(step(samples), samples)
                    if accelerator.sync_gradients:
                        step.settle()
                        accelerator.clip_grad_norm_(weights, MAX_GRAD_NORM)
                        result.optimizer_steps += 1
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                result.forward_tokens += num_tokens
                result.samples.update(sample.source for sample in samples)
                behind += 1
                progress(stage, min(result.forward_tokens, config.max_tokens), config.max_tokens)
                if result.forward_tokens >= config.max_tokens:
                    break
                if accelerator.sync_gradients and time.perf_counter() - last_kept > checkpoint.EVERY_S:
                    keep()
            epoch, behind = epoch + 1, 0
            losses.read()
            if on_epoch_end is not None:
                wrapped.eval()
                with accelerator.autocast(), as_written():  # LoRA weights are fp32 beside those of the model
                    on_epoch_end(epoch)
                wrapped.train()
    keep()
    step.close()
    accelerator.free_memory()
    peft_model.eval()
    if adapter_to is not None and accelerator.is_main_process:
        peft_model.save_pretrained(str(adapter_to), save_embedding_layers=False)
    _merge(backbone, peft_model)
    result.seconds += time.perf_counter() - started
    return result


def check_positions(backbone: Backbone, batches: Sequence[Sequence[Sample]]) -> None:
    """Raises MethodError for a sample that goes on behind the last position that the model has learnt."""
    longest = max((sample for batch in batches for sample in batch), key=len)
    if backbone.facts.learned_positions and len(longest) > backbone.facts.context_length:
        raise MethodError(
            f"a training sample ({longest.kind}) has {len(longest)} tokens, and {backbone.name} has positions for "
            f"{backbone.facts.context_length}; shorten memories, questions or conversations, or choose a model "
            "with more"
        )


def drawn_first(backbone: Backbone, epochs: Iterator[list[list[Sample]]]) -> Iterator[list[list[Sample]]]:
    """The same epochs, the first drawn and checked now: for a step that is trained behind another."""
    if not backbone.facts.learned_positions:
        return epochs
    first = next(epochs)
    check_positions(backbone, first)
    return chain([first], epochs)


class _Losses:
    """Of the batches so far: on a card they are read many at once, since to read one is to wait for it."""

    def __init__(self, accelerator: Any, stage: str, log: TrainLog) -> None:
        self._accelerator, self._stage, self._log = accelerator, stage, log
        self._every = READ_EVERY if accelerator.device.type == "cuda" else 1
        self._waiting: list[tuple[dict[str, Tensor], Sequence[Sample], int]] = []

    def add(self, losses: dict[str, Tensor], samples: Sequence[Sample]) -> None:
        """Losses of a batch, of which each process has computed its share."""
        if self._accelerator.num_processes > 1:
            batch = counts(samples)
            present = {"lm": batch.lm_weight > 0, "retrieval": batch.num_asked > 0}
            device = next(iter(losses.values())).device
            shares = [losses.get(name, torch.zeros((), device=device)).float() for name in present]
            means = self._accelerator.reduce(torch.stack(shares), reduction="mean")
            losses = {name: mean for (name, there), mean in zip(present.items(), means, strict=True) if there}
        self._waiting.append((losses, samples, self._log.forward_tokens))
        if len(self._waiting) >= self._every:
            self.read()

    def read(self) -> None:
        """Raises MethodError where one is no number: after its step no weight is."""
        values = [value.float() for losses, _, _ in self._waiting for value in losses.values()]
        read = iter(torch.stack(values).tolist() if values else ())
        for losses, samples, tokens_before in self._waiting:
            found = {name: next(read) for name in losses}
            for name, value in found.items():
                if math.isfinite(value):
                    continue
                sources = ", ".join(f"{source} ({n})" for source, n in Counter(s.source for s in samples).items())
                step = len(self._log.losses.get(name, ())) + 1
                raise MethodError(
                    f"{self._stage}: the {name} loss is {value} at step {step}, after {tokens_before} tokens, on "
                    f"samples from {sources}; lower train.learning_rate, or set dtype=float32"
                )
            self._log.add(**found)
        self._waiting = []


def _merge(backbone: Backbone, peft_model: Any) -> None:
    backbone.model = peft_model.merge_and_unload()
    backbone.merged = True
    backbone.model.eval()
    for parameter in backbone.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None


def merge_adapters(backbone: Backbone, folders: Sequence[Path]) -> None:
    """Merges adapters that `train_lora` saved, in the order of training. The backbone must be untouched."""
    for folder in folders:
        _merge(backbone, load_adapter(backbone.model, folder))
