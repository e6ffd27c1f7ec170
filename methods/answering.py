"""What every method does around the decode loop: prompts in, `Answer` out."""

from __future__ import annotations

from collections.abc import Sequence

from methods.backbone import Backbone
from methods.base import Answer, Context, Lookup, Usage
from methods.chat import fit_history, parse_answer
from methods.decode import Generated


def prompts_for(backbone: Backbone, ctxs: Sequence[Context]) -> tuple[list[list[int]], list[int]]:
    """Prompt ids of each context, cut to the window, and how many history messages were cut."""
    prompts, cuts = [], []
    for ctx in ctxs:
        ids, cut = fit_history(backbone, ctx.messages, backbone.context_length - ctx.max_new_tokens)
        prompts.append(ids)
        cuts.append(cut)
    return prompts, cuts


def answer_from(
    backbone: Backbone,
    output: Generated,
    lookups: tuple[Lookup, ...],
    truncated_turns: int,
    extra_stage_s: dict[str, float] | None = None,
) -> Answer:
    """Generated ids -> Answer. extra_stage_s: time spent before decoding (embed, search)."""
    tokens = list(output.token_ids)
    raw = backbone.tokenizer.decode(tokens, skip_special_tokens=False)
    think, final = parse_answer(raw, backbone.tokenizer.decode([backbone.ids.eos]))
    extra = extra_stage_s or {}
    before = sum(extra.values())
    times = output.token_s
    ttft = ttfa = total = 0.0
    stage_s: dict[str, float] = {}
    if times:
        ids = backbone.ids
        ttft, total = before + times[0], before + times[len(tokens) - 1]
        if ids.think_end in tokens[:-1]:  # else no answer token ever came, and there is no time to it
            ttfa = before + times[tokens.index(ids.think_end) + 1]
        recalled = 0.0
        if ids.memory_pad in tokens:
            start = tokens.index(ids.memory_pad)
            closed = ids.recall_end in tokens[start:]
            end = tokens.index(ids.recall_end, start) if closed else len(tokens) - 1
            recalled = times[end] - times[start]
        stage_s = {**extra, **output.stage_s, "recalled_text": recalled}
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
    )
    return Answer(raw, think, final, lookups, usage, output.finished)
