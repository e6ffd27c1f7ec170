# ruff: noqa: E501 (a table: one metric a line)
"""What each metric is called and what it means, in one line: the vocabulary of every table.

Keys are those of summary.json (eval.summary). Definitions stand in the functions of eval/; these lines
are for the reader of a report. A metric that is missing here is still shown, under its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["share", "s", "ms", "tokens", "bytes", "gflops", "number"]
Group = Literal["retention", "abstention", "ledger", "structure", "cost", "lifecycle", "ability"]
Level = Literal["headline", "short", "full"]

GROUPS: dict[Group, str] = {
    "retention": "Retention",
    "abstention": "Abstention",
    "ledger": "Ledger: where answers are lost",
    "structure": "Structure",
    "cost": "Cost",
    "lifecycle": "Lifecycle",
    "ability": "Ordinary ability",
}


@dataclass(frozen=True)
class Row:
    """One metric as people read it."""

    key: str  # in summary.json
    label: str  # at most 24 characters: three methods must fit beside it in 100 columns
    unit: Unit
    group: Group
    meaning: str  # one line
    level: Level = "full"  # headline: comparison table and terminal; short: terminal too; full: report only


# fmt: off
ROWS: tuple[Row, ...] = (
    Row("retention/first_ask_cued", "first ask, cued", "share", "retention", "right first answers about clauses that had training questions", "headline"),
    Row("retention/first_ask_uncued", "first ask, uncued", "share", "retention", "the same for clauses given as raw text only, as most rulebooks are", "headline"),
    Row("retention/accuracy", "all scored turns", "share", "retention", "right answers over every scored turn of the dialogues", "headline"),
    Row("retention/consistency", "same when re-asked", "share", "retention", "re-asks that got the same answer as before", "short"),
    Row("retention/flips", "right, then wrong", "share", "retention", "of the facts answered right, those wrong when re-asked; lower is better"),
    Row("retention/gives_in", "gives in", "share", "retention", "of the facts answered right, those lost when the user contradicts; lower is better"),
    Row("retention/first_ask", "first asks", "share", "retention", "right answers when a fact is asked for the first time"),
    Row("retention/re_ask", "re-asks", "share", "retention", "right answers when it is asked again in other words; the history may help"),
    Row("retention/follow_up", "follow-ups", "share", "retention", "right answers to elliptic questions about a sibling clause"),
    Row("retention/near_miss", "near misses", "share", "retention", "right answers about a sibling clause asked for in full"),
    Row("retention/contradiction", "contradictions", "share", "retention", "right answers after the user claims a wrong value"),
    Row("retention/two_clause", "two clauses", "share", "retention", "right answers to questions that need two clauses"),
    Row("retention/unanswerable", "unanswerable", "share", "retention", "questions that no clause covers, declined without naming another value"),
    Row("retention/accuracy_unknown_to_none", "all, unknown to none", "share", "retention", "right answers to what the control arm without memories got wrong"),
    Row("retention/first_ask_unknown_to_none", "first, unknown to none", "share", "retention", "the same over the first asks"),
    Row("retention/accuracy_known_to_none", "all, known to none", "share", "retention", "right answers to what that arm got right too, without any memory"),
    Row("retention/first_ask_known_to_none", "first, known to none", "share", "retention", "the same over the first asks"),
    Row("retention/history_cut", "history cut", "share", "retention", "answers for which the oldest messages were cut to fit the context window, the same for every method"),
    Row("retention/passages_dropped", "passages dropped", "share", "retention", "of the answers with passages in the prompt, those where some did not fit beside the history"),
    Row("retention/accuracy_loose", "key among others", "share", "retention", "answers that assert the key and no near-miss value, whatever else they say"),
    Row("retention/exact_match", "exact match", "share", "retention", "answers that equal the key once normalised"),
    Row("retention/f1", "token F1", "share", "retention", "mean overlap of answer and key"),
    Row("abstention/precision", "abstention precision", "share", "abstention", "of the answers that declined, those where no clause covers the question", "short"),
    Row("abstention/recall", "abstention recall", "share", "abstention", "of the questions that no clause covers, those that were declined", "headline"),
    Row("abstention/recall_behind", "abstention r., behind", "share", "abstention", "the same where a clause was asked for earlier in the dialogue"),
    Row("ledger/false_recall", "false recall", "share", "abstention", "ordinary turns where a clause was recalled all the same; lower is better", "headline"),
    Row("ledger/false_recall_behind", "false recall, behind", "share", "abstention", "the same where a clause was asked for earlier in the dialogue; lower is better"),
    Row("ledger/missed_recall", "missed recall", "share", "abstention", "answerable asks where no clause was looked up; lower is better"),
    Row("ledger/null_on_unanswerable", "null when uncovered", "share", "abstention", "uncovered questions where no clause was looked up"),
    Row("ledger/trigger", "looked up", "share", "ledger", "answerable asks where the method looked something up", "short"),
    Row("ledger/hit_at_1", "hit@1", "share", "ledger", "of the look-ups for answerable asks, those whose first choice was the right clause", "headline"),
    Row("ledger/hit_at_k", "hit@k", "share", "ledger", "look-ups with the right clause among all candidates"),
    Row("ledger/verbatim", "verbatim", "share", "ledger", "of the right clauses, those whose text came back word for word", "headline"),
    Row("ledger/correct_given_verbatim", "right, given verbatim", "share", "ledger", "right answers where the clause came back first and word for word"),
    Row("ledger/recited", "recited in the think", "share", "ledger", "asks where the clause's text stands in the reasoning word for word"),
    Row("ledger/gold", "clause in hand", "share", "ledger", "answerable asks where the clause's text reached the answer: recalled, retrieved or recited", "short"),
    Row("ledger/used", "right, clause in hand", "share", "ledger", "of those, the right answers", "short"),
    Row("ledger/unaided", "right without it", "share", "ledger", "of the others, the right answers", "short"),
    Row("structure/well_formed", "well-formed", "share", "structure", "answers whose reasoning opens and closes in order, with nothing leaked", "headline"),
    Row("structure/correct_and_well_formed", "right and well-formed", "share", "structure", "answers that are both", "headline"),
    Row("structure/stopped_after_recall", "stopped after recall", "share", "structure", "of the answers with a recall, those that did not reason on; lower is better", "short"),
    Row("structure/think_closed", "think closed", "share", "structure", "answers whose reasoning was closed before the token limit"),
    Row("structure/truncated", "cut answers", "share", "structure", "answers that were cut at their token limit, which are never well formed; lower is better"),
    Row("structure/leaked", "leaked control tokens", "share", "structure", "answers with a control token or a chat template's mark where none belongs; lower is better"),
    Row("structure/steps_kept", "steps kept", "share", "structure", "share of the reference's step structure that is kept"),
    Row("structure/chain_kept", "chain kept, ordinary", "share", "structure", "the same on ordinary turns, against the corpus's own chain"),
    Row("cost/ttft_p50_s", "first token, ms", "ms", "cost", "median time to the first new token (TTFT), batch 1", "headline"),
    Row("cost/ttfa_p50_s", "first answer token, s", "s", "cost", "median time to the first token behind the reasoning (TTFA): the fair one", "headline"),
    Row("cost/tpot_p50_s", "per further token, ms", "ms", "cost", "median time for each token after the first", "short"),
    Row("cost/latency_p50_s", "whole answer, s", "s", "cost", "median time from the question to the last token", "headline"),
    Row("cost/latency_p95_s", "whole answer, p95, s", "s", "cost", "19 of 20 answers are done by then", "short"),
    Row("cost/latency_mean_s", "whole answer, mean, s", "s", "cost", "mean time from the question to the last token"),
    Row("cost/accuracy", "timed ones right", "share", "cost", "share of the timed answers that are right; cost per right answer rests on these"),
    Row("cost/serial_latency_p50_s", "without drafts, s", "s", "cost", "median time of the same answers decoded a token a forward", "short"),
    Row("cost/forwards", "forwards", "tokens", "cost", "mean passes through the model for one answer; a pass may take a drafted text whole"),
    Row("cost/stage_embed_s", "stage: embed, ms", "ms", "cost", "mean time to turn the question into a vector"),
    Row("cost/stage_search_s", "stage: search, ms", "ms", "cost", "mean time to search the index"),
    Row("cost/stage_prompt_s", "stage: prompt, ms", "ms", "cost", "mean time for template and tokenisation"),
    Row("cost/stage_prefill_s", "stage: prefill, ms", "ms", "cost", "mean time to read the prompt"),
    Row("cost/stage_memory_head_s", "stage: memory head, ms", "ms", "cost", "mean time to choose the memory"),
    Row("cost/stage_recalled_text_s", "stage: recalled, ms", "ms", "cost", "mean time to write out the recalled text"),
    Row("cost/stage_rest_s", "stage: rest, ms", "ms", "cost", "mean time outside all of these: writing the answer"),
    Row("cost/prompt_tokens", "prompt tokens", "tokens", "cost", "mean tokens read for one answer", "headline"),
    Row("cost/new_tokens", "new tokens", "tokens", "cost", "mean tokens written for one answer", "headline"),
    Row("cost/flops", "GFLOPs", "gflops", "cost", "mean 10^9 floating-point operations of one answer: generation and look-up", "short"),
    Row("cost/lookup_flops", "of it, look-up", "gflops", "cost", "finding memories: the memory head, or the sentence encoder's pass over the question"),
    Row("cost/kv_bytes", "keys and values, MiB", "bytes", "cost", "mean exact size of the cache at the end of an answer"),
    Row("cost/peak_vram_bytes", "peak GPU memory, MiB", "bytes", "cost", "most GPU memory allocated while answering, loading left out; n counts measurements", "headline"),
    Row("cost/reserved_vram_bytes", "reserved GPU memory, MiB", "bytes", "cost", "most that the GPU's allocator held at once while answering, used or not"),
    Row("cost/peak_rss_bytes", "peak RSS, MiB", "bytes", "cost", "most resident memory of the process while answering, loading left out, without a GPU; n counts measurements", "headline"),
    Row("cost/bytes_stored", "stored, MiB", "bytes", "cost", "what the method keeps beside the base weights: adapters, and bank or index"),
    Row("cost/index_bytes", "of it, bank or index", "bytes", "cost", "the memory bank's vectors, or RAG's index"),
    Row("cost/fit_s", "fit, s", "s", "cost", "time to get the knowledge in, on the threads of the next row", "headline"),
    Row("cost/fit_threads", "fit, threads", "number", "cost", "CPU threads of a fit: fits side by side share the cores, and seconds on unlike threads do not compare", "headline"),
    Row("cost/fit_tokens", "fit, tokens", "tokens", "cost", "non-padding tokens through the model while fitting, over all stages", "headline"),
    Row("cost/fit_steps", "fit, optimiser steps", "tokens", "cost", "optimiser steps over all stages"),
    Row("cost/per_correct_s_k1", "per right answer, k=1", "s", "cost", "seconds for one right answer when the fit, as timed on its own threads, serves one question"),
    Row("cost/per_correct_s_k100", "... k=100", "s", "cost", "the same when it serves 100"),
    Row("cost/per_correct_s_k10000", "... k=10000", "s", "cost", "the same when it serves 10,000"),
    Row("lifecycle/refit", "changed by a refit", "number", "lifecycle", "1: it cannot change its memories, so its times and tokens below are those of a new fit"),
    Row("lifecycle/refit_threads", "refit, threads", "number", "lifecycle", "CPU threads of a refit, the fewest of several; seconds on unlike threads do not compare"),
    Row("lifecycle/write_s", "write, s a clause", "s", "lifecycle", "mean time to add a clause after the fit, several a call; a refit, which adds all, counts whole"),
    Row("lifecycle/rewritten", "fitted ones rewritten", "number", "lifecycle", "1: the fit saw every clause, so some were forgotten and written again; weights may still know those"),
    Row("lifecycle/write_bytes", "write, MiB a clause", "bytes", "lifecycle", "what the bank or index grows by"),
    Row("lifecycle/write_tokens", "write, tokens a clause", "tokens", "lifecycle", "tokens trained on for it; a refit's, whole"),
    Row("lifecycle/write_accuracy", "right once written", "share", "lifecycle", "right answers about clauses that the fit never saw"),
    Row("lifecycle/write_hit_at_1", "hit@1 once written", "share", "lifecycle", "look-ups for them whose first choice was the new clause"),
    Row("lifecycle/write_verbatim", "verbatim once written", "share", "lifecycle", "of these right clauses, those whose text came back word for word"),
    Row("lifecycle/write_accuracy_cued", "written, right, cued", "share", "lifecycle", "right answers about the written clauses that have training questions"),
    Row("lifecycle/write_accuracy_uncued", "written, right, uncued", "share", "lifecycle", "the same about those written as raw text only"),
    Row("lifecycle/write_hit_at_1_cued", "written, hit@1, cued", "share", "lifecycle", "look-ups for the cued ones whose first choice was the new clause"),
    Row("lifecycle/write_hit_at_1_uncued", "written, hit@1, uncued", "share", "lifecycle", "the same for the uncued ones"),
    Row("lifecycle/write_verbatim_cued", "written, verb., cued", "share", "lifecycle", "of the right cued clauses, those whose text came back word for word"),
    Row("lifecycle/write_verbatim_uncued", "written, verb., uncued", "share", "lifecycle", "the same of the uncued ones"),
    Row("lifecycle/write_neighbour_change", "others, by a write", "share", "lifecycle", "change of the right answers about clauses that were left alone; below 0 is harm"),
    Row("lifecycle/update_s", "update, s a clause", "s", "lifecycle", "mean time to replace a clause, one a call; a refit counts whole"),
    Row("lifecycle/update_bytes", "update, MiB a clause", "bytes", "lifecycle", "what the bank or index grows by; below 0 it shrinks"),
    Row("lifecycle/update_tokens", "update, tokens a clause", "tokens", "lifecycle", "tokens trained on for it; a refit's, whole"),
    Row("lifecycle/update_accuracy", "right after an update", "share", "lifecycle", "updated clauses answered with the new value"),
    Row("lifecycle/stale_rate", "stale after an update", "share", "lifecycle", "updated clauses answered with the old value; lower is better"),
    Row("lifecycle/stale_before", "old value before it", "share", "lifecycle", "the same questions answered with the old value while it still held"),
    Row("lifecycle/update_neighbour_change", "siblings, by an update", "share", "lifecycle", "change of the right answers about their siblings; below 0 is harm"),
    Row("lifecycle/forget_s", "forget, s a clause", "s", "lifecycle", "mean time to forget a clause, one a call; a refit counts whole"),
    Row("lifecycle/forget_bytes", "forget, MiB a clause", "bytes", "lifecycle", "what the bank or index grows by; below 0 it shrinks"),
    Row("lifecycle/forget_tokens", "forget, tokens a clause", "tokens", "lifecycle", "tokens trained on for it; a refit's, whole"),
    Row("lifecycle/forget_abstention", "declined once forgotten", "share", "lifecycle", "forgotten clauses whose questions were declined"),
    Row("lifecycle/forget_abstention_before", "declined before", "share", "lifecycle", "the same questions declined while the clause was still there"),
    Row("lifecycle/forget_abstention_recall_off", "declined, recall off", "share", "lifecycle", "the same once forgotten and with recall switched off"),
    Row("lifecycle/forget_still_right", "still right, forgotten", "share", "lifecycle", "forgotten clauses answered right all the same; lower is better"),
    Row("lifecycle/forget_right_before", "right before forgetting", "share", "lifecycle", "the same questions answered right before"),
    Row("lifecycle/forget_still_right_recall_off", "still right, recall off", "share", "lifecycle", "right although forgotten and recall switched off: the weights know it; lower is better"),
    Row("lifecycle/neighbour_accuracy", "siblings of forgotten", "share", "lifecycle", "right answers about the siblings of forgotten clauses"),
    Row("lifecycle/neighbour_before", "the same, before", "share", "lifecycle", "right answers about them before anything was forgotten"),
    Row("lifecycle/forget_neighbour_change", "siblings, by forgetting", "share", "lifecycle", "the change between the two; below 0 is harm"),
    Row("lifecycle/growth_s", "growth, s a clause", "s", "lifecycle", "mean time to add one more clause as it fills with further ones"),
    Row("lifecycle/growth_tokens", "growth, tokens a clause", "tokens", "lifecycle", "tokens trained on for it"),
    Row("lifecycle/growth_bytes", "growth, MiB a clause", "bytes", "lifecycle", "what the bank or index grows by as it fills with further clauses"),
    Row("lifecycle/growth_hit_change", "hit@1, by growth", "share", "lifecycle", "change of hit@1 once the bank is filled; below 0 is harm"),
    Row("ability/before", "before the fit", "share", "ability", "held-out general tasks, the untouched model"),
    Row("ability/after", "after the fit", "share", "ability", "the same tasks, the method in place"),
    Row("ability/reasoning_kept", "reasoning kept", "share", "ability", "of the ordinary problems that the model before the fit reasoned through to the right answer, those that it still does"),
    Row("ability/with_memory", "a memory in context", "share", "ability", "the same tasks, a memory vector sitting in context"),
)
# fmt: on
