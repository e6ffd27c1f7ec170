"""Writing without training: new memories for a fitted model, every weight frozen.

The value, the vector that is injected and decoded, is optimised alone against the frozen model: Adam on the
vector, cross-entropy on the memory's text (Memory Tokens, arXiv:2506.15001; Cramming, arXiv:2502.13063). What
is decoded greedily is exact once every target token is the argmax after the right prefix, so one forward
tells when a memory may stop. Targets grow: tokens behind the first wrong one count little until it is right
(Progressive Cramming: teacher-forced accuracy alone can be 99% where the greedy decode is never exact).

The key is the text's own vector, moved towards the states that questions about it have at <recall>; where a
memory has several keys, so is each of them.

Shapes: B batch, T tokens, D hidden, N new memories, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.chat import IGNORE, Sample, encode_pieces, encode_prompt, supervised
from methods.recall.embed import last_states
from methods.samples import recall_pieces
from methods.train import Batch, collate
from tasks.base import Memory, Message

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class WriteConfig:
    """How values are optimised. max_steps 0: the text's own vector is written as it is."""

    max_steps: int = 200
    learning_rate: float = 0.01  # of Adam, on vectors that are normalised at every use
    batch_size: int = 8  # memories optimised together
    growth: int = 6  # tokens behind the first wrong one that count in full
    later_weight: float = 0.2  # of the tokens behind those
    patience: int = 2  # steps in a row that must be exact, each in another context
    query_weight: float = 1.0  # of the questions' mean state in the key
    warm_start_cosine: float = 0.7  # a memory with a key this near lends its value as the start


@dataclass(frozen=True)
class Written:
    """What the optimisation came to."""

    values_ND: Tensor
    exact: tuple[bool, ...]  # decoded word for word in the last contexts tried
    steps: tuple[int, ...]
    forward_tokens: int


def _sample(backbone: Backbone, memory: Memory, messages: Sequence[Message]) -> Sample:
    """context + `<think>\\n<recall><|memory_pad|>TEXT</recall>`; TEXT and </recall> are learnt."""
    target = encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", *recall_pieces(backbone, memory.text)])
    recall = target.index(backbone.ids.recall)
    return supervised(
        encode_prompt(backbone, messages),
        target,
        "memory_front",
        pad=recall + 1,
        memory_index=0,
        target_loss_from=recall + 1,
    )


def _logits(backbone: Backbone, batch: Batch, values_BD: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """-> (logits (L, V) of the labelled positions, their rows (L,)), the values injected under the pad."""
    model = backbone.model
    embeds_BTD = model.get_input_embeddings()(batch.input_ids_BT)
    rows_B = torch.arange(len(values_BD), device=embeds_BTD.device)
    embeds_BTD = embeds_BTD.index_put(
        (rows_B, batch.pad_position_B), (F.normalize(values_BD, dim=-1) * gain).to(embeds_BTD)
    )
    decoder = getattr(model, model.base_model_prefix)
    hidden_BTD = decoder(
        inputs_embeds=embeds_BTD, attention_mask=batch.attention_mask_BT, use_cache=False
    ).last_hidden_state
    rows, columns = (batch.labels_BT[:, 1:] != IGNORE).nonzero(as_tuple=True)
    return model.get_output_embeddings()(hidden_BTD[rows, columns]).float(), rows


def _token_weights(right: Tensor, config: WriteConfig) -> Tensor:
    """Full weight up to a few tokens behind the first wrong one, little behind that."""
    wrong = (~right).nonzero()
    weights = torch.ones(len(right), device=right.device)
    if len(wrong):
        weights[int(wrong[0]) + 1 + config.growth :] = config.later_weight
    return weights


def optimise_values(
    backbone: Backbone,
    memories: Sequence[Memory],
    start_ND: Tensor,
    contexts: Sequence[Sequence[Sequence[Message]]],
    gain: float,
    config: WriteConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Written:
    """Values (N, D) from which the frozen model decodes each memory's text.

    contexts: for every memory the conversations after which it may be recalled; at each step it is decoded
    after one of them, in turn. gain: the norm of what is injected. A memory stops as soon as `patience` steps
    in a row were exact. Nothing but the vectors is changed.
    """
    values = start_ND.detach().clone().float()
    exact, steps = [False] * len(memories), [0] * len(memories)
    tokens = 0
    rng = random.Random(seed)
    for start in range(0, len(memories), config.batch_size):
        members = list(range(start, min(start + config.batch_size, len(memories))))
        part = torch.nn.Parameter(values[members].clone())
        optimizer = torch.optim.Adam([part], lr=config.learning_rate)
        orders = {n: rng.sample(list(contexts[n]), len(contexts[n])) for n in members}
        streak = dict.fromkeys(members, 0)
        for step in range(config.max_steps):
            active = [n for n in members if streak[n] < config.patience]
            if not active:
                break
            samples = [_sample(backbone, memories[n], orders[n][step % len(orders[n])]) for n in active]
            batch = collate(samples, int(backbone.tokenizer.pad_token_id), backbone.device)
            tokens += batch.num_tokens
            local = torch.tensor([n - start for n in active], device=part.device)
            logits, rows = _logits(backbone, batch, part[local], gain)
            targets = batch.labels_BT[:, 1:][batch.labels_BT[:, 1:] != IGNORE]
            right = logits.argmax(dim=-1) == targets
            weights = torch.cat([_token_weights(right[rows == i], config) for i in range(len(active))])
            for i, n in enumerate(active):
                steps[n] += 1
                streak[n] = streak[n] + 1 if bool(right[rows == i].all()) else 0
                exact[n] = streak[n] > 0
            optimizer.zero_grad(set_to_none=True)
            losses = F.cross_entropy(logits, targets, reduction="none") * weights
            moving = torch.tensor([streak[n] < config.patience for n in active], device=part.device)
            (losses * moving[rows]).sum().div(weights.sum()).backward()
            before = part.detach().clone()
            optimizer.step()
            with torch.no_grad():  # Adam's momentum would move a memory that is done
                done = [n - start for n in members if streak[n] >= config.patience]
                part[done] = before[done]
            if progress is not None:
                finished = sum(streak[n] >= config.patience for n in members)
                progress("writing", start + finished, len(memories))
        values[members] = part.detach()
    return Written(F.normalize(values, dim=-1), tuple(exact), tuple(steps), tokens)


def query_states(backbone: Backbone, questions: Sequence[Sequence[Message]], batch_size: int = 32) -> Tensor:
    """(Q, D): unit states at <recall> behind each conversation, as the memory head sees them."""
    ids = backbone.ids
    tail = encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
    sequences = [encode_prompt(backbone, messages) + tail for messages in questions]
    return F.normalize(last_states(backbone, sequences, batch_size).float(), dim=-1)
