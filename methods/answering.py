"""What every method does around the decode loop: prompts in, `Answer` out, at once or as it is generated."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from methods.backbone import Backbone, ControlIds
from methods.base import Answer, Context, Lookup, MemoryPath, Method, MethodError, Usage
from methods.chat import fit_history, history_room
from methods.decode import Generated, listening
from methods.parts import Part


def prompts_for(backbone: Backbone, ctxs: Sequence[Context]) -> tuple[list[list[int]], list[int]]:
    """Prompt ids of each context without passages, and how many messages of its history were cut.

    Every method cuts here, so that all lose the same (DESIGN section 3); one that shows passages adds them to
    what is left. Raises MethodError for a question that goes on behind the positions that a model has learnt.
    """
    prompts, cuts = [], []
    for ctx in ctxs:
        room = history_room(backbone.facts.context_length, ctx.max_new_tokens)
        ids, cut = fit_history(backbone, ctx.messages, room)
        if backbone.facts.learned_positions and len(ids) + ctx.max_new_tokens > backbone.facts.context_length:
            raise MethodError(
                f"a question has {len(ids)} tokens with its template, an answer {ctx.max_new_tokens}, and "
                f"{backbone.name} has positions for {backbone.facts.context_length}; shorten the question, lower "
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
    memory_path: MemoryPath,
    *,
    searched_vectors: int = 0,
) -> Answer:
    """Generated ids -> Answer. Its times run from the start of the clock."""
    tokens = list(output.token_ids)
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
    return Answer(parts_of(backbone, tokens), lookups, usage, output.finished, memory_path)


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


def parts_of(backbone: Backbone, token_ids: Sequence[int]) -> tuple[Part, ...]:
    """Generated ids, cut at control tokens. Text is decoded behind the one before it, so that its blank stays."""
    decode = functools.partial(backbone.tokenizer.decode, skip_special_tokens=False)
    parts: list[Part] = []
    before: list[int] = []
    for control, run in itertools.groupby(token_ids, key=backbone.control_ids.__contains__):
        ids = list(run)
        if control:
            parts += (Part("stop" if i in backbone.facts.stop_ids else "control", decode([i])) for i in ids)
            before = ids[-1:]
        else:
            parts.append(Part("text", decode([*before, *ids]).removeprefix(decode(before))))
    return tuple(parts)


def stream_answer(
    method: Method, ctx: Context, backbone: Backbone, on_parts: Callable[[Sequence[Part]], None]
) -> Answer:
    """`method.answer(ctx)`; on_parts receives the parts so far with every token that is generated.

    An exception of on_parts ends the generation and is passed on.
    """
    token_ids: list[int] = []

    def add(token: int) -> None:
        token_ids.append(token)
        on_parts(parts_of(backbone, token_ids))

    with listening(add):
        return method.answer(ctx)
