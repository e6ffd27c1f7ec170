"""The one generation loop, for every method, so that a latency difference is the memory mechanism's.

`decode_loop` is a callable for `model.generate(..., custom_generate=...)`. It mirrors the stock sampling
loop step by step and opens two seats for an `Interceptor`: it may force the next token of a row after a
forward, and it may replace the next input embedding of a row before one. Without an interceptor, or with
one that never acts, the output is token-identical to stock `generate`.

Shapes: B batch, R rows of it that are computed, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.prefixes import current_prefixes, join_prefixes, lay_out

FREE = -1  # in forced tokens: this row chooses its own token

OnToken = Callable[[Tensor], None]  # receives the (B,) ids of each new step
_listener: ContextVar[OnToken | None] = ContextVar("listener", default=None)


@contextmanager
def listening(on_token: OnToken) -> Iterator[None]:
    """Every generation that this thread starts in the block calls on_token, whichever method starts it."""
    before = _listener.set(on_token)
    try:
        yield
    finally:
        _listener.reset(before)


class TokenStreamer(Protocol):
    """What the loop asks of a streamer of the library (`TextStreamer`, `TextIteratorStreamer`)."""

    def put(self, value: Tensor) -> None:
        """The (B, T) prompt, then the (B,) ids of each new step."""

    def end(self) -> None:
        """No token comes any more."""


class Interceptor(Protocol):
    """What a memory mechanism may do inside the loop."""

    def begin(self, batch_size: int, clock: Clock) -> None:
        """A new batch starts: forget everything."""

    def next_inputs_embeds(self, input_ids_B1: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Before a forward: (B, 1, D) to feed in place of the last tokens, or None."""

    def after_forward(self, input_ids_BT: Tensor, hidden_BD: Tensor) -> Tensor | None:
        """After a forward: (B,) forced next token ids with -1 where free, or None.

        hidden: last state; 0 for a row that has stopped.
        """


class Clock:
    """Wall times of one answer: each new token, and named stages. Synchronises CUDA.

    It runs from when it is made: a method makes it before anything else, so that look-up, template and
    tokenisation are in every time.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self._sync = device.type == "cuda"
        self.start_s = self.now()
        self.token_s: list[float] = []  # seconds from the start to each new token
        self.stage_s: dict[str, float] = {}

    def now(self) -> float:
        if self.enabled and self._sync:
            torch.cuda.synchronize()
        return time.perf_counter()

    def token(self) -> None:
        if self.enabled:
            self.token_s.append(self.now() - self.start_s)

    def took(self, stage_s: Mapping[str, float]) -> None:
        """Stages that were timed elsewhere while this clock ran."""
        self.stage_s |= stage_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if not self.enabled:
            yield
            return
        begin = self.now()
        yield
        self.stage_s[name] = self.stage_s.get(name, 0.0) + self.now() - begin


@contextmanager
def _last_hidden_state(model: Any) -> Iterator[dict[str, Tensor]]:
    """Catches what enters the output head: the last hidden state, at no cost and for any architecture."""
    seen: dict[str, Tensor] = {}

    def keep(_module: Any, args: tuple[Tensor, ...]) -> None:
        seen["hidden"] = args[0][:, -1, :]

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _streaming(streamer: TokenStreamer | None, prompt_BT: Tensor) -> Iterator[OnToken]:
    """Puts the prompt; in the block, what puts a step. Ends after an error too: a reader waits for it."""
    if streamer is None:
        yield lambda _next_B: None
        return
    try:
        streamer.put(prompt_BT.cpu())
        yield lambda next_B: streamer.put(next_B.cpu())
    finally:
        streamer.end()


def _spread(values_R: Tensor, rows_R: Tensor, batch_size: int, fill: int) -> Tensor:
    """(R, ...) -> (B, ...), with `fill` in the rows that are computed no more."""
    if len(rows_R) == batch_size:
        return values_R
    return values_R.new_full((batch_size, *values_R.shape[1:]), fill).index_copy(0, rows_R, values_R)


def _only_rows(kept: Tensor, model_kwargs: dict[str, Any], num_rows: int) -> None:
    """Takes rows that have stopped out of the cache and of what goes with it: nothing is computed for them."""
    for name, value in model_kwargs.items():
        if isinstance(value, Tensor) and value.dim() and len(value) == num_rows:
            model_kwargs[name] = value[kept]
    model_kwargs["past_key_values"].reorder_cache(kept)  # of every kind of layer, running states too


@torch.no_grad()
def decode_loop(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    interceptor: Interceptor | None = None,
    clock: Clock | None = None,
    on_token: OnToken | None = None,
    final_cache: dict[str, Any] | None = None,
    token_streamer: TokenStreamer | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """Greedy or sampled decoding. input_ids: (B, T) left-padded -> (B, T + new).

    on_token receives the (B,) ids of each new step (streaming); final_cache, a dict, the cache of the rows that
    spoke to the end.
    token_streamer: a streamer of the library, to be given under this name: `model.generate` hands `streamer=` to
    no callable, gives it the prompt and never ends it.
    """
    from transformers import Cache

    model_kwargs.pop("synced_gpus", None)
    batch_size = input_ids.shape[0]
    clock = clock or Clock(input_ids.device, enabled=False)
    has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)  # else all stop together
    pad_token_id = int(generation_config._pad_token_tensor) if has_eos else 0
    embed = model.get_input_embeddings()
    rows_R = torch.arange(batch_size, device=input_ids.device)  # of the batch, those that are computed
    speaking_R = torch.ones_like(rows_R, dtype=torch.bool)
    ids_RT = input_ids
    if interceptor is not None:
        interceptor.begin(batch_size, clock)
    with _streaming(token_streamer, input_ids) as put, _last_hidden_state(model) as seen:
        with clock.stage("prefill"):
            outputs = model._prefill(input_ids, generation_config, model_kwargs)
        # Sampling draws for every row, as in stock; a state outside a cache has ways of its own.
        in_cache = isinstance(model_kwargs.get("past_key_values"), Cache)
        may_leave = has_eos and in_cache and not generation_config.do_sample
        while True:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            logits_RV = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores_RV = logits_processor(ids_RT, logits_RV)
            if generation_config.do_sample:
                next_R = torch.multinomial(scores_RV.softmax(dim=-1), num_samples=1).squeeze(1)
            else:
                next_R = scores_RV.argmax(dim=-1)
            if interceptor is not None:
                hidden_BD = _spread(seen["hidden"], rows_R, batch_size, 0)
                forced_B = interceptor.after_forward(input_ids, hidden_BD)
                if forced_B is not None:
                    forced_R = forced_B[rows_R]
                    next_R = torch.where(forced_R == FREE, next_R, forced_R)
            if has_eos:
                next_R = torch.where(speaking_R, next_R, pad_token_id)
            next_B = _spread(next_R, rows_R, batch_size, pad_token_id)
            input_ids = torch.cat([input_ids, next_B[:, None]], dim=-1)
            clock.token()
            put(next_B)
            if on_token is not None:
                on_token(next_B)
            ids_RT = torch.cat([ids_RT, next_R[:, None]], dim=-1)
            speaking_R = speaking_R & ~stopping_criteria(ids_RT, None)
            num_speaking = int(speaking_R.sum())
            if num_speaking == 0:
                break
            if may_leave and num_speaking < len(rows_R):
                kept = speaking_R.nonzero().squeeze(1)
                _only_rows(kept, model_kwargs, len(rows_R))
                rows_R, speaking_R, ids_RT = rows_R[kept], speaking_R[kept], ids_RT[kept]
            step_kwargs = dict(model_kwargs)
            if interceptor is not None:
                inputs_embeds = interceptor.next_inputs_embeds(input_ids[:, -1:], embed)
                if inputs_embeds is not None:  # otherwise the library would ignore inputs_embeds here
                    step_kwargs |= {"inputs_embeds": inputs_embeds[rows_R], "is_first_iteration": True}
            inputs = model.prepare_inputs_for_generation(ids_RT, next_sequence_length=1, **step_kwargs)
            outputs = model(**inputs, return_dict=True)
    if final_cache is not None:
        final_cache["past_key_values"] = model_kwargs.get("past_key_values")
    return input_ids


@dataclass(frozen=True)
class Sampling:
    """Token sampling. Greedy by default: every headline figure is greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 20
    top_p: float = 0.95
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Generated:
    """One row's new tokens, up to and including the stop token."""

    token_ids: tuple[int, ...]
    prompt_tokens: int
    finished: bool
    token_s: tuple[float, ...] = ()  # from the clock's start to each new token
    stage_s: dict[str, float] = field(default_factory=dict)
    kv_bytes: int = 0  # at batch 1


def _cache_bytes(cache: Any) -> int:
    """Exact bytes of keys and values."""
    total = 0
    for layer in getattr(cache, "layers", []):
        for tensor in (layer.keys, layer.values):
            if tensor is not None:
                total += tensor.numel() * tensor.element_size()
    return total


def generate(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    interceptor: Interceptor | None = None,
    sampling: Sampling | None = None,
    clock: Clock | None = None,
    on_token: OnToken | None = None,
    token_bias: Mapping[int, float] | None = None,
) -> list[Generated]:
    """Decodes a batch of prompts (token ids) through `model.generate(custom_generate=decode_loop)`.

    max_new_tokens: one cap, or one a row. clock: with batch 1, an enabled one records when each token came and
    how long each stage took; it is good for one call. on_token: as in `decode_loop`; without one, that of a
    `listening` block around the call. In a `reusing` block the prompts go on from what is computed of them.
    token_bias: token id -> what is added to its logit at every step.
    """
    on_token = on_token or _listener.get()
    caps = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    sampling = sampling or Sampling()
    model: Any = backbone.model
    device = backbone.device
    pad = int(backbone.tokenizer.pad_token_id)
    prefixes = current_prefixes()
    begun = prefixes.compute(model, prompts) if prefixes else None
    rows, masks = lay_out(prompts, [len(prefix) for prefix in begun] if begun else [0] * len(prompts), pad)
    input_ids, mask = torch.tensor(rows, device=device), torch.tensor(masks, device=device)
    width = input_ids.shape[1]
    final_cache: dict[str, Any] = {}
    clock = clock or Clock(device, enabled=False)
    loop = functools.partial(
        decode_loop, interceptor=interceptor, clock=clock, on_token=on_token, final_cache=final_cache
    )
    knobs: dict[str, Any] = {
        "do_sample": sampling.do_sample,
        "repetition_penalty": sampling.repetition_penalty,
    }
    if sampling.do_sample:
        knobs |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    if token_bias:
        knobs["sequence_bias"] = [[[token], float(bias)] for token, bias in token_bias.items()]
    if begun:
        knobs["past_key_values"] = join_prefixes(model, begun)
        del begun  # else it would lie in memory beside the cache
    output = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        max_new_tokens=max(caps),
        eos_token_id=backbone.ids.eos,
        pad_token_id=pad,
        suppress_tokens=[backbone.ids.memory_pad],  # it stands where it is forced and nowhere else
        custom_generate=loop,
        **knobs,
    )
    kv_bytes = _cache_bytes(final_cache.get("past_key_values")) if len(prompts) == 1 else 0
    results = []
    for row, (prompt, cap) in enumerate(zip(prompts, caps, strict=True)):
        new = output[row, width : width + cap].tolist()
        finished = backbone.ids.eos in new
        if finished:
            new = new[: new.index(backbone.ids.eos) + 1]
        results.append(
            Generated(tuple(new), len(prompt), finished, tuple(clock.token_s), dict(clock.stage_s), kv_bytes)
        )
    return results
