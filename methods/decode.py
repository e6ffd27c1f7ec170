"""The one generation loop, for every method, so that a latency difference is the memory mechanism's.

It calls the model through its public interface alone (token ids or embeddings, mask, positions, cache), so one
forward may take several tokens of a row. Each step:

    1. feed    what the row said last: its own choice, or what a mechanism gave it; behind that its draft
    2. choose  the next token behind every place that was fed
    3. keep    the draft's longest beginning that the model chose itself; the rest leaves the cache
    4. give    where the last token is the mechanism's trigger, what must stand behind it, as tokens or as vectors

A draft is text at hand that the model is likely to say: greedy output is the same with and without it, up to
rounding (Yang et al. 2023, arXiv:2304.04487). Where nothing is given or drafted, tokens are those of the library's
`generate`, greedy, or sampled with one seed.

Shapes: R rows that are computed, S places fed in one step, T tokens, P vectors, D hidden, V vocabulary.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.fixed_cache import Fed, FixedModel, last_hidden_states
from methods.graphs import recordable
from methods.prefixes import current_prefixes, join_prefixes, keeps_every_token, lay_out, new_cache, within

MAX_LOGIT_BYTES = 2**30  # of one step's logits: what a step may feed at once
LOGIT_SHARE = 32  # of a card's memory, as its divisor, likewise
FIXED_ROOM = 64  # places of a fixed cache beside those of the answers: what drafts leave unused

OnToken = Callable[[int], None]  # receives each new token of a batch of one
_listener: ContextVar[OnToken | None] = ContextVar("listener", default=None)
_serial: ContextVar[bool] = ContextVar("serial", default=False)


def listening(on_token: OnToken) -> AbstractContextManager[None]:
    """Every generation of one prompt that this thread starts in the block calls on_token, whoever starts it."""
    return within(_listener, on_token)


def serially() -> AbstractContextManager[None]:
    """Every generation that this thread starts in the block feeds one token at a time and drafts nothing."""
    return within(_serial, True)


@dataclass(frozen=True)
class Given:
    """What stands behind a trigger, whatever the model would say."""

    token_ids: Sequence[int]  # as they stand in the output
    vectors_PD: Tensor  # fed in place of the embeddings of the first P of them
    draft: Sequence[int] = ()  # what the model is likely to say next


class Mechanism(Protocol):
    """A memory mechanism inside the loop."""

    trigger: int  # token id

    def begin(self, batch_size: int, clock: Clock) -> None:
        """A new batch starts: forget everything."""

    def give(self, rows: Sequence[int], hidden_RD: Tensor) -> Sequence[Given]:
        """Rows of the batch whose last token is the trigger, and their last hidden states there."""


Drafter = Callable[
    [Sequence[int]], Sequence[int]
]  # a row's new tokens -> what it is likely to say next; () if unknown


def quoting(opening: Sequence[int], texts: Sequence[Sequence[int]], least: int = 0) -> Drafter:
    """Drafts the first of the texts that continues what was said, where an answer opens with one of them.

    least: tokens of a text that must be said before; 0: the first text is as good a guess as any.
    """
    wholes = [[*opening, *text] for text in texts]

    def propose(said: Sequence[int]) -> Sequence[int]:
        if len(said) < least + bool(least) * len(opening):
            return ()
        return next((whole[len(said) :] for whole in wholes if whole[: len(said)] == list(said)), ())

    return propose


class Clock:
    """Wall times of one answer: since its start, and of named stages. Synchronises CUDA.

    It runs from when it is made: a method makes it before anything else, so that look-up, template and
    tokenisation are in every time.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self._device = device
        self.start_s = self.now()
        self.stage_s: dict[str, float] = {}

    def now(self) -> float:
        if self.enabled and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def passed(self) -> float:
        """Seconds since the start; 0 where the clock is off."""
        return self.now() - self.start_s if self.enabled else 0.0

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


@dataclass(frozen=True)
class Sampling:
    """Token sampling. Greedy by default: every headline figure is greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 20
    top_p: float = 0.95

    def processors(self, never: Sequence[int], device: torch.device) -> Any:
        """The library's own, in its order. never: token ids that are not chosen. device: where the scores are."""
        from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

        return LogitsProcessorList([SuppressTokensLogitsProcessor(list(never), str(device)), *self.warpers()])

    def warpers(self) -> list[Any]:
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        if not self.do_sample:
            return []
        return [
            TemperatureLogitsWarper(self.temperature),
            TopKLogitsWarper(self.top_k),
            TopPLogitsWarper(self.top_p),
        ]


@dataclass(frozen=True)
class Generated:
    """One row's new tokens, up to and including the stop token."""

    token_ids: tuple[int, ...]
    prompt_tokens: int
    finished: bool
    token_s: tuple[float, ...] = ()  # from the clock's start to each new token
    stage_s: dict[str, float] = field(default_factory=dict)
    kv_bytes: int = 0  # at batch 1
    forwards: int = 0  # of the batch
    drafted: int = 0  # tokens offered as drafts


@dataclass
class _Row:
    """One answer on its way."""

    number: int  # in the batch as it was given
    cap: int
    stop_ids: Sequence[int]
    clock: Clock
    on_token: OnToken | None
    drafter: Drafter | None
    fed: list[Fed]  # in this step; of the prompt its last token
    num_tried: int = 0  # of these, the last are a draft
    said: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    given: list[Fed] = field(default_factory=list)  # said, but not fed yet
    draft: list[int] = field(default_factory=list)  # expected next
    finished: bool = False
    drafted: int = 0

    @property
    def done(self) -> bool:
        return self.finished or len(self.said) >= self.cap

    @property
    def width(self) -> int:
        """Places that all there is to feed would take."""
        return max(1, len(self.given)) + len(self.draft)

    def say(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            if self.done:  # a stop token may stand inside a draft
                return
            self.said.append(token)
            self.times.append(self.clock.passed())
            self.finished = token in self.stop_ids
            if self.on_token is not None:
                self.on_token(token)

    def feed(self, several: bool, pad: int) -> None:
        """What is fed next; several: all that is given, and the draft behind it."""
        if self.done:  # where a row stays to the end
            self.fed, self.num_tried = [(pad, None)], 0
            return
        items = self.given or [(self.said[-1], None)]
        draft = self.draft[: self.cap - len(self.said) - 1] if several else []
        own = items if several else items[:1]
        self.given = self.given[len(own) :]
        self.fed = [*own, *((token, None) for token in draft)]
        self.num_tried = len(draft)
        self.drafted += len(draft)

    def choose(self, chosen_S: Sequence[int], trigger: int | None) -> tuple[int, bool]:
        """Says the draft as far as it was chosen, and the choice behind it.

        -> (how many of the fed places hold, whether the last is the trigger: then nothing is said).
        """
        own = len(self.fed) - self.num_tried
        tried = [token for token, _ in self.fed[own:]]
        right = next((n for n, token in enumerate(tried) if chosen_S[own - 1 + n] != token), len(tried))
        if self.done or self.given:
            return own, False
        if self.fed[-1][0] == trigger:
            return own, True
        new = [*tried[:right], chosen_S[own - 1 + right]]
        self.draft = self.draft[len(new) :] if self.draft[: len(new)] == new else []
        self.say(new)
        if not self.draft and self.drafter is not None:
            self.draft = list(self.drafter(self.said))
        return own + right, False

    def receive(self, given: Given, may_draft: bool) -> None:
        vectors = list(given.vectors_PD)
        self.say(given.token_ids)
        self.given = [(t, vectors[n] if n < len(vectors) else None) for n, t in enumerate(given.token_ids)]
        self.draft = list(given.draft) if may_draft else []


class _Model:
    """The model with its cache and the mask of what each row may see there."""

    def __init__(self, model: Any, cache: Any, seen: Mapping[str, Tensor]) -> None:
        self.model, self.cache, self._seen = model, cache, seen
        self.embed = model.get_input_embeddings()
        self.mask_RT: Tensor = torch.empty(0)
        self.forwards = 0
        takes = inspect.signature(model.forward).parameters
        self._positions, self._keep = "position_ids" in takes, "logits_to_keep" in takes

    def _call(self, position_ids_RS: Tensor, keep: int, **inputs: Tensor) -> Tensor:
        """Logits (R, keep, V) of the last places."""
        if self._positions:
            inputs["position_ids"] = position_ids_RS
        if self._keep:
            inputs["logits_to_keep"] = keep  # type: ignore[assignment]
        self.forwards += 1
        outputs = self.model(
            **inputs, attention_mask=self.mask_RT, past_key_values=self.cache, use_cache=True, return_dict=True
        )
        logits: Tensor = outputs.logits[:, -keep:]
        return logits

    def prefill(self, ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """Prompts, padded on the left; those of their tokens that are in the cache are not computed again."""
        self.mask_RT = mask_RT
        past = self.cache.get_seq_length()
        positions_RT = (mask_RT.cumsum(dim=-1) - 1).clamp(min=0)
        return self._call(positions_RT[:, past:], 1, input_ids=ids_RT[:, past:])

    def step(self, fed: Sequence[Sequence[Fed]]) -> Tensor:
        """Each row's tokens, or vectors in place of their embeddings; shorter rows are padded on the right."""
        device = self.mask_RT.device
        width = max(map(len, fed))
        lengths_R1 = torch.tensor([len(items) for items in fed], device=device)[:, None]
        place_S = torch.arange(width, device=device)
        start_R1 = self.mask_RT.sum(dim=1, keepdim=True)
        self.mask_RT = torch.cat([self.mask_RT, (place_S < lengths_R1).to(self.mask_RT)], dim=1)
        ids_RS = torch.tensor(
            [[token for token, _ in items] + [0] * (width - len(items)) for items in fed], device=device
        )
        positions_RS = start_R1 + torch.minimum(place_S, lengths_R1 - 1)
        vectors = [(r, s, vector) for r, items in enumerate(fed) for s, (_, vector) in enumerate(items)]
        vectors = [spot for spot in vectors if spot[2] is not None]
        if not vectors:
            return self._call(positions_RS, width, input_ids=ids_RS)
        rows, places, found = zip(*vectors, strict=True)
        embeds_RSD = self.embed(ids_RS).clone()
        embeds_RSD[list(rows), list(places)] = torch.stack(found).to(embeds_RSD)
        return self._call(positions_RS, width, inputs_embeds=embeds_RSD)

    def keep(self, kept: Sequence[int], width: int) -> None:
        """Of the last `width` places only each row's first `kept` stay in sight; what none keeps is cut off."""
        if min(kept) == width:
            return
        place_S = torch.arange(width, device=self.mask_RT.device)
        seen_RS = place_S < torch.tensor(kept, device=self.mask_RT.device)[:, None]
        self.mask_RT[:, -width:] *= seen_RS.to(self.mask_RT)
        spare = width - max(kept)
        if spare:
            self.cache.crop(-spare)
            self.mask_RT = self.mask_RT[:, :-spare]

    def only(self, rows: Sequence[int]) -> None:
        """Rows that have stopped leave: nothing is computed for them."""
        index_R = torch.tensor(rows, device=self.mask_RT.device)
        self.mask_RT = self.mask_RT[index_R]
        self.cache.reorder_cache(index_R)

    @property
    def hidden(self) -> Tensor:
        """Last hidden states (R, S, D) of the last forward."""
        return self._seen["hidden"]

    @property
    def kv_bytes(self) -> int:
        """Exact bytes of keys and values."""
        tensors = [t for layer in getattr(self.cache, "layers", []) for t in (layer.keys, layer.values)]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    mechanism: Mechanism | None = None,
    drafters: Sequence[Drafter] | None = None,
    sampling: Sampling | None = None,
    clock: Clock | None = None,
) -> list[Generated]:
    """Decodes a batch of prompts (token ids), greedily unless `sampling` says otherwise.

    max_new_tokens: one cap, or one a row. drafters: of each row, for a method that holds texts; used where
    decoding is greedy and the cache keeps every token. clock: an enabled one records when each token came and how
    long each stage took; it is good for one call. In a `listening` block a batch of one is told token by token,
    and in a `reusing` block the prompts go on from what is computed of them.
    """
    model, pad = backbone.model, int(backbone.tokenizer.pad_token_id)
    sampling = sampling or Sampling()
    clock = clock or Clock(backbone.device, enabled=False)
    on_token = _listener.get() if len(prompts) == 1 else None
    caps = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    keeps_all = keeps_every_token(model)
    may_feed_several = not _serial.get() and keeps_all
    may_draft = may_feed_several and not sampling.do_sample
    helped: Sequence[Drafter | None] = drafters if drafters and may_draft else [None] * len(prompts)
    everyone = [
        _Row(n, caps[n], backbone.facts.stop_ids, clock, on_token, helped[n], [(prompt[-1], None)])
        for n, prompt in enumerate(prompts)
    ]
    # It stands where it is given and nowhere else.
    processors = sampling.processors([backbone.ids.memory_pad], backbone.device)
    fast = recordable(backbone.device) and keeps_all
    prefixes = None if fast else current_prefixes()  # a card computes prompts anew in less time
    begun = prefixes.compute(model, prompts) if prefixes else None
    starts = [len(prefix) for prefix in begun] if begun else [0] * len(prompts)
    ids_RT, mask_RT = lay_out(prompts, starts, pad, backbone.device)
    cache = join_prefixes(model, begun) if begun else new_cache(model)
    del begun  # else it would lie in memory beside the cache
    trigger = None
    if mechanism is not None:
        mechanism.begin(len(prompts), clock)
        trigger = mechanism.trigger

    rows = list(everyone)
    with ExitStack() as stack:
        growing = _Model(model, cache, stack.enter_context(last_hidden_states(model)))
        running: _Model | FixedModel = growing
        with clock.stage("prefill"):
            logits_RSV = growing.prefill(ids_RT, mask_RT)
        hidden_RSD = running.hidden
        if fast:
            fixed = FixedModel.behind(model, cache, growing.mask_RT, max(caps) + FIXED_ROOM, growing.forwards)
            if fixed is not None:
                stack.callback(fixed.close)
                running = fixed
        del cache, growing
        while True:
            chosen = _choices(rows, logits_RSV, sampling, processors)
            kept, called = zip(*(row.choose(chosen[r], trigger) for r, row in enumerate(rows)), strict=True)
            calling = [r for r, calls in enumerate(called) if calls]
            if mechanism is not None and calling:
                places = [len(rows[r].fed) - 1 - logits_RSV.shape[1] for r in calling]  # from the end
                found = mechanism.give([rows[r].number for r in calling], hidden_RSD[calling, places])
                for r, given in zip(calling, found, strict=True):
                    rows[r].receive(given, may_draft)
            running.keep(kept, max(len(row.fed) for row in rows))
            left = [r for r, row in enumerate(rows) if not row.done]
            if not left:
                break
            if len(left) < len(rows) and not sampling.do_sample:  # a draw is made for every row, as in the library
                running.only(left)
                rows = [rows[r] for r in left]
            several = may_feed_several and _worth_it(rows, logits_RSV.shape[-1], backbone.device)
            for row in rows:
                row.feed(several, pad)
            logits_RSV = running.step([row.fed for row in rows])
            hidden_RSD = running.hidden
    return [
        Generated(
            tuple(row.said),
            len(prompts[row.number]),
            row.finished,
            tuple(row.times) if clock.enabled else (),
            dict(clock.stage_s),
            running.kv_bytes if len(prompts) == 1 else 0,
            running.forwards,
            row.drafted,
        )
        for row in everyone
    ]


def _choices(rows: Sequence[_Row], logits_RSV: Tensor, sampling: Sampling, processors: Any) -> list[list[int]]:
    """(R, S) token ids: the best behind every place; where tokens are drawn, one draw behind each row's last."""
    num_rows, width, _ = logits_RSV.shape
    if not sampling.do_sample:
        return processors(None, logits_RSV.flatten(0, 1)).argmax(dim=-1).unflatten(0, (num_rows, width)).tolist()
    scores_RV = processors(None, logits_RSV[range(num_rows), [len(row.fed) - 1 for row in rows]].float())
    return torch.multinomial(scores_RV.softmax(dim=-1), num_samples=1).expand(-1, width).tolist()


def _worth_it(rows: Sequence[_Row], vocabulary: int, device: torch.device) -> bool:
    """Whether at least half of the rows have more than one token to feed, and the logits of all find room.

    Those that have not wait for the others: a place of padding costs as much as one of a draft.
    """
    widths = [row.width for row in rows if not row.done]
    most = MAX_LOGIT_BYTES
    if device.type == "cuda":
        most = max(most, torch.cuda.get_device_properties(device).total_memory // LOGIT_SHARE)
    room = len(rows) * max(widths) * vocabulary * 4 <= most
    return room and 2 * sum(width > 1 for width in widths) >= len(rows)
