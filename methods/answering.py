"""What every method does around the decode loop: prompts in, `Answer` out, at once or as it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from methods.backbone import Backbone, ControlIds
from methods.base import Answer, Context, Lookup, Method, MethodError, Usage
from methods.chat import fit_history, history_room, parse_answer
from methods.decode import Generated, listening


def prompts_for(backbone: Backbone, ctxs: Sequence[Context]) -> tuple[list[list[int]], list[int]]:
    """Prompt ids of each context without passages, and how many messages of its history were cut.

    Every method cuts here, so that all lose the same (DESIGN section 3); one that shows passages adds them to
    what is left. Raises MethodError for a question that goes on behind the positions that a model has learnt.
    """
    prompts, cuts = [], []
    for ctx in ctxs:
        room = history_room(backbone.context_length, ctx.max_new_tokens)
        ids, cut = fit_history(backbone, ctx.messages, room)
        if backbone.facts.learned_positions and len(ids) + ctx.max_new_tokens > backbone.context_length:
            raise MethodError(
                f"a question has {len(ids)} tokens with its template, an answer {ctx.max_new_tokens}, and "
                f"{backbone.name} has positions for {backbone.context_length}; shorten the question, lower "
                "evaluation.max_new_tokens or choose a model with more"
            )
        prompts.append(ids)
        cuts.append(cut)
    return prompts, cuts


def answer_from(
    backbone: Backbone,
    output: Generated,
    lookups: tuple[Lookup, ...],
    truncated_turns: int,
    *,
    searched_vectors: int = 0,
) -> Answer:
    """Generated ids -> Answer. Its times run from the start of the clock."""
    tokens = list(output.token_ids)
    raw = backbone.tokenizer.decode(tokens, skip_special_tokens=False)
    think, final = parse_answer(raw, backbone.tokenizer.decode(tokens[-1:] if output.finished else []))
    times = output.token_s
    ttft = ttfa = total = 0.0
    stage_s: dict[str, float] = {}
    if times:
        ids = backbone.ids
        ttft, total = times[0], times[len(tokens) - 1]
        if ids.think_end in tokens[:-1]:  # else no answer token ever came, and there is no time to it
            ttfa = times[tokens.index(ids.think_end) + 1]
        stage_s = {**output.stage_s, "recalled_text": recalled_text_s(tokens, times, ids)}
        stage_s["rest"] = max(0.0, total - sum(stage_s.values()))
    usage = Usage(
        prompt_tokens=output.prompt_tokens,
        new_tokens=len(tokens),
        ttft_s=ttft,
        ttfa_s=ttfa,
        total_s=total,
        stage_s=stage_s,
        kv_bytes=output.kv_bytes,
        truncated_turns=truncated_turns,
        searched_vectors=searched_vectors,
        forwards=output.forwards,
        drafted=output.drafted,
    )
    return Answer(raw, think, final, lookups, usage, output.finished)


def recalled_text_s(tokens: Sequence[int], times: Sequence[float], ids: ControlIds) -> float:
    """Seconds from the first pad of each recall to its `</recall>`, over all recalls of an answer.

    One that never closes ends with the next recall, the think or the answer. times: when each token came.
    """
    ends = (ids.recall_end, ids.recall, ids.think_end)
    seconds = 0.0
    start: int | None = None
    for at, token in enumerate(tokens):
        if start is None and token == ids.memory_pad:
            start = at
        elif start is not None and (token in ends or at == len(tokens) - 1):
            seconds += times[at] - times[start]
            start = None
    return seconds


class TextStream:
    """Token ids as they come -> their text. A character whose bytes are not all there yet waits for them."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._ids: list[int] = []
        self._sent = ""

    def add(self, token: int) -> None:
        """The next token."""
        self._ids.append(token)
        self.send(self._tokenizer.decode(self._ids, skip_special_tokens=False).rstrip("\ufffd"))

    def send(self, text: str) -> None:
        """text: all there is so far; what is new in it goes out."""
        if text.startswith(self._sent) and text != self._sent:
            new, self._sent = text[len(self._sent) :], text
            self._on_text(new)


def stream_answer(method: Method, ctx: Context, tokenizer: Any, on_text: Callable[[str], None]) -> Answer:
    """`method.answer(ctx)`; on_text receives `Answer.raw` piece by piece while it is generated.

    An exception of on_text ends the generation and is passed on.
    """
    text = TextStream(tokenizer, on_text)
    with listening(text.add):
        answer = method.answer(ctx)
    text.send(answer.raw)
    return answer
