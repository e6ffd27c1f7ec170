"""Writing without training: new memories for a fitted model, every weight frozen.

The value, what is injected and decoded, is optimised alone against the frozen model: Adam on the vectors,
cross-entropy on the memory's text (Memory Tokens, arXiv:2506.15001; Cramming, arXiv:2502.13063). It is exact
in a conversation once every target token leads there after the right prefix; it is made exact in one
conversation first and then in the others, and stays untouched where it already is.

A value has several vectors, fed one after another, a few tokens of text to each. A small model does not get
a clause of 46 tokens out of one vector: 100 steps at any rate, with a free norm or a fixed one, from the text's
own vector, a sibling's or the mean, left at least 14 tokens wrong; 4 vectors were exact after 111 steps, 8 after
44. Capacity grows with the number of vectors. They keep the norms that they come to.

The key starts at the text's own vector, moved towards the states that questions about it have at <recall>, and
is trained alone on them: they pick it from the whole bank, and other memories' keys stay out of its way. Those
were trained with the weights and lie where their questions are; a mean of question states, unpushed, draws
their questions to itself. Of several keys the first, the whole text's, is fitted so.

Shapes: T tokens, D hidden, P vectors of one memory, M memories in the bank, N new ones, Q questions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import MethodError
from methods.chat import encode_pieces, encode_prompt
from methods.recall.embed import last_states
from tasks.base import Memory, Message


@dataclass(frozen=True)
class WriteConfig:
    """How values are optimised. max_steps 0: the text's own vector is written as it is."""

    max_steps: int = 200  # of the optimiser, for one memory
    learning_rate: float = 0.1  # of Adam; injected vectors have a norm of about 3 at the start, 20 at the end
    warmup_steps: int = 5
    tokens_per_vector: int = 6
    margin: float = 0.5  # logits by which each target must lead: reduced precision decides within less
    query_weight: float = 1.0  # of the questions' mean state in the key's start; 0: the text's vector is the key
    key_steps: int = 100  # of the optimiser, on all new keys together
    key_learning_rate: float = 0.02
    key_apart: float = 60.0  # weight of the new keys' mean cosine above 0 with the bank's keys
    warm_start_cosine: float = 0.7  # a memory with a key this near lends its value as the start

    def __post_init__(self) -> None:
        for name in ("tokens_per_vector", "warmup_steps"):
            if getattr(self, name) < 1:
                raise MethodError(f"write.{name}={getattr(self, name)} is too few; choose 1 or more")


@dataclass(frozen=True)
class WrittenValue:
    """What the optimisation came to."""

    fed_PD: Tensor
    exact: bool  # decoded word for word in every conversation it was tried in
    steps: int
    forward_tokens: int


@dataclass(frozen=True)
class _Prefix:
    """A conversation up to <recall>, computed once: nothing that is optimised stands before the vectors."""

    layers: tuple[tuple[Tensor, Tensor], ...]  # keys and values of each layer
    num_tokens: int


def _decoder(backbone: Backbone) -> Any:
    return getattr(backbone.model, backbone.model.base_model_prefix)


@torch.no_grad()
def _prefix(backbone: Backbone, messages: Sequence[Message]) -> _Prefix:
    from transformers import DynamicCache

    ids = [*encode_prompt(backbone, messages)]
    ids += encode_pieces(backbone.tokenizer, [backbone.ids.think, "\n", backbone.ids.recall])
    cache: Any = DynamicCache(config=backbone.model.config)  # its layer types differ more than ours do
    _decoder(backbone)(
        input_ids=torch.tensor([ids], device=backbone.device), past_key_values=cache, use_cache=True
    )
    return _Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), len(ids))


def _target_logits(backbone: Backbone, prefix: _Prefix, fed_PD: Tensor, target_T: Tensor) -> Tensor:
    """(T, V): the frozen model's logits for each target token behind the vectors and the targets before it."""
    from transformers import DynamicCache

    cache = DynamicCache(config=backbone.model.config)
    for index, (keys, values) in enumerate(prefix.layers):
        cache.update(keys, values, index)
    embeds_TD = backbone.model.get_input_embeddings()(target_T[:-1])
    embeds_1TD = torch.cat([fed_PD.to(embeds_TD), embeds_TD])[None]
    hidden_1TD = _decoder(backbone)(
        inputs_embeds=embeds_1TD, past_key_values=cache, use_cache=True
    ).last_hidden_state
    logits: Tensor = backbone.model.get_output_embeddings()(hidden_1TD[0, len(fed_PD) - 1 :]).float()
    return logits


def _all_lead(logits_TV: Tensor, target_T: Tensor, margin: float) -> bool:
    """Does every target token lead all others by the margin?"""
    target_logit_T = logits_TV.gather(1, target_T[:, None])[:, 0]
    others_TV = logits_TV.scatter(1, target_T[:, None], float("-inf"))
    return bool((target_logit_T - others_TV.amax(dim=-1) > margin).all())


def spread_start(start_PD: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, D): the start's vectors, cut, or with copies of the first one apart from each other."""
    if len(start_PD) >= count:
        return start_PD[:count].clone()
    generator = torch.Generator().manual_seed(seed)
    noise_D = torch.randn(count - len(start_PD), start_PD.shape[1], generator=generator).to(start_PD)
    norm = start_PD[0].norm()
    copies = F.normalize(start_PD[0] + 0.5 * norm * F.normalize(noise_D, dim=-1), dim=-1) * norm
    return torch.cat([start_PD, copies])


def optimise_value(
    backbone: Backbone,
    memory: Memory,
    start_PD: Tensor,
    conversations: Sequence[Sequence[Message]],
    config: WriteConfig,
    *,
    seed: int = 0,
) -> WrittenValue:
    """Vectors from which the frozen model decodes the memory's text in each of the conversations.

    start_PD: what is fed at first; missing vectors are copies of the first one, spread. Nothing but the
    vectors is changed, and no gradient is left behind.
    """
    pieces = encode_pieces(backbone.tokenizer, [memory.text, backbone.ids.recall_end])
    target_T = torch.tensor(pieces, device=backbone.device)
    count = max(1, -(-len(pieces) // config.tokens_per_vector))
    fed_PD = torch.nn.Parameter(spread_start(start_PD.detach().float(), count, seed))
    optimizer = torch.optim.Adam([fed_PD], lr=config.learning_rate)
    prefixes = [_prefix(backbone, messages) for messages in conversations]
    tokens = sum(prefix.num_tokens for prefix in prefixes)
    place = in_a_row = steps = 0
    while in_a_row < len(prefixes):
        logits_TV = _target_logits(backbone, prefixes[place], fed_PD, target_T)
        tokens += count + len(pieces) - 1
        place = (place + 1) % len(prefixes)
        if _all_lead(logits_TV.detach(), target_T, config.margin):
            in_a_row += 1
            continue
        in_a_row = 0
        if steps == config.max_steps:
            break
        loss = F.cross_entropy(logits_TV, target_T)
        (fed_PD.grad,) = torch.autograd.grad(loss, [fed_PD])
        steps += 1
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, steps / config.warmup_steps)
        optimizer.step()
    return WrittenValue(fed_PD.detach(), in_a_row == len(prefixes), steps, tokens)


def fit_keys(
    texts_ND: Tensor, states: Sequence[Tensor], known_MD: Tensor, tau: float, config: WriteConfig
) -> Tensor:
    """Unit keys (N, D) of new memories, from their texts' vectors and their questions' states (Q, D) each.

    known_MD: the keys of the bank that stay; they do not move. tau: of the memory head's training.
    """
    if not config.query_weight:
        return texts_ND
    means_ND = torch.stack([own_QD.mean(dim=0) for own_QD in states])
    keys_ND = torch.nn.Parameter(F.normalize(texts_ND + config.query_weight * means_ND, dim=-1))
    queries_QD = torch.cat(list(states))
    rows = [row for row, own_QD in enumerate(states) for _ in own_QD]
    index_Q = torch.tensor(rows, device=queries_QD.device)
    optimizer = torch.optim.Adam([keys_ND], lr=config.key_learning_rate)
    for _ in range(config.key_steps):
        unit_ND = F.normalize(keys_ND, dim=-1)
        logits = queries_QD @ torch.cat([unit_ND, known_MD]).T / tau
        too_near = F.relu(known_MD @ unit_ND.T).mean() if len(known_MD) else 0.0
        optimizer.zero_grad(set_to_none=True)
        (F.cross_entropy(logits, index_Q) + config.key_apart * too_near).backward()
        optimizer.step()
    return F.normalize(keys_ND.detach(), dim=-1)


@torch.no_grad()
def query_states(backbone: Backbone, questions: Sequence[Sequence[Message]], batch_size: int = 32) -> Tensor:
    """(Q, D): unit states at <recall> behind each conversation, as the memory head sees them."""
    ids = backbone.ids
    tail = encode_pieces(backbone.tokenizer, [ids.think, "\n", ids.recall])
    sequences = [encode_prompt(backbone, messages) + tail for messages in questions]
    return F.normalize(last_states(backbone, sequences, batch_size).float(), dim=-1)
