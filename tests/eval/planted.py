"""Records of methods whose every figure is known, because it was planted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eval.records import CostRecord, TurnRecord
from methods.base import Answer, Lookup, MemoryPath, Usage
from methods.parts import CONTROL_TOKENS, Part
from tasks.base import QA, TurnKind

USAGE = Usage(prompt_tokens=40, new_tokens=30)
ABSTAINS = "The handbook does not say."
FORGETS_AFTER = 2  # turns of filler
TOKENS = (*CONTROL_TOKENS, "<|im_start|>", "<|im_end|>", "<|endoftext|>")
_CONTROL = re.compile(f"({'|'.join(map(re.escape, TOKENS))})")


def clause(number: int) -> str:
    return f"Staff of office {number} may spend {100 + number} euros a day on meals."


def question(number: int, slot: str = "amount") -> QA:
    return QA(
        id=f"c{number}/{slot}",
        question=f"How much may staff of office {number} spend on meals?",
        answer=f"{100 + number} euros",
        memory_ids=(f"c{number}",),
        rivals=(f"{500 + number} euros",),
        split="test",
        slot=slot,
    )


UNANSWERABLE = QA("u", "Who pays for parking?", "", (), split="test", kind="unanswerable")


def raw_of(think: str, final: str) -> str:
    return f"<think>\n{think}\n</think>\n{final}<|im_end|>"


def recall_raw(text: str, final: str, reasoning: str = "So that is the answer.") -> str:
    return raw_of(f"<recall><|memory_pad|>{text}</recall>\n{reasoning}", final)


def parts_of(raw: str) -> tuple[Part, ...]:
    """As if each control token in the text were one by its id; <|im_end|> at the end is the stop token."""
    cut = [text for text in _CONTROL.split(raw) if text]
    parts = [Part("control" if _CONTROL.fullmatch(text) else "text", text) for text in cut]
    if cut and cut[-1] in ("<|im_end|>", "<|endoftext|>"):
        parts[-1] = Part("stop", cut[-1])
    return tuple(parts)


def answer(raw: str, lookups: tuple[Lookup, ...] = (), memory_path: MemoryPath | None = None) -> Answer:
    """As a method would answer; without a memory_path that of its kind."""
    kind: MemoryPath = "recall" if "<recall>" in raw else "retrieve" if lookups else "weights"
    return Answer(parts_of(raw), lookups, USAGE, memory_path=memory_path or kind)


def turn(
    number: int,
    kind: TurnKind,
    given: Answer,
    *,
    method: str = "recall",
    index: int = 0,
    distance: int | None = 0,
    qa: QA | None = None,
    seed: int = 0,
    dialogue: str = "",
) -> TurnRecord:
    qa = qa if qa is not None or kind == "ordinary" else question(number)
    return TurnRecord(
        method=method,
        seed=seed,
        dialogue_id=dialogue or f"d{number}",
        turn=index,
        kind=kind,
        question="" if qa is None else qa.question,
        answer=given,
        qa=qa,
        distance=distance,
        cluster=f"c{number}",
        cued=number % 2 == 0 if qa is not None and qa.memory_ids else None,
        memory_text=clause(number) if qa is not None and qa.memory_ids else "",
        reference_think="Three and four make seven. Seven is odd." if kind == "ordinary" else "",
    )


def right(number: int) -> Answer:
    lookup = Lookup(f"c{number}", 0.9, clause(number), ((f"c{number}", 0.9), ("c0", 0.1)))
    return answer(recall_raw(clause(number), f"It is {100 + number} euros."), (lookup,))


def wrong(number: int) -> Answer:
    """Finds the sibling's clause and gives the sibling's value."""
    lookup = Lookup(f"x{number}", 0.9, "some other clause", ((f"x{number}", 0.9), (f"c{number}", 0.8)))
    return answer(recall_raw("some other clause", f"It is {500 + number} euros."), (lookup,))


def unclosed(number: int) -> Answer:
    return replace(answer(f"<think>\nLet me see. It may be {100 + number} euros."), finished=False)


def dialogues(
    answers: Callable[[int, TurnKind, int], Answer],
    num_clauses: int = 20,
    method: str = "recall",
    seed: int = 0,
) -> list[TurnRecord]:
    """Per clause and distance: a first ask, a re-ask, an unanswerable question and an ordinary turn.

    answers: (clause number, kind, distance) -> Answer, asked in the order of the turns.
    """
    records = []
    for number in range(num_clauses):
        for d in (0, 1, 2, 4, 8):
            name = f"c{number}/{d}"
            at = {"method": method, "seed": seed, "dialogue": name}
            records += [
                turn(number, "first_ask", answers(number, "first_ask", d), index=d, distance=d, **at),
                turn(number, "re_ask", answers(number, "re_ask", d), index=2 * d + 1, distance=d, **at),
                turn(
                    number,
                    "unanswerable",
                    answers(number, "unanswerable", d),
                    index=2 * d + 2,
                    distance=None,
                    qa=UNANSWERABLE,
                    **at,
                ),
                turn(number, "ordinary", answers(number, "ordinary", d), index=2 * d + 3, distance=None, **at),
            ]
    return records


def plain(number: int, kind: TurnKind) -> Answer:
    """The right thing to do on turns that no clause answers."""
    if kind == "ordinary":
        return answer(raw_of("Three and four make seven. Seven is odd.", "7, which is odd."))
    return answer(raw_of("No clause covers this.", ABSTAINS))


def always_right(number: int, kind: TurnKind, d: int) -> Answer:
    return right(number) if kind in ("first_ask", "re_ask") else plain(number, kind)


def right_with(p: float, rng: np.random.Generator) -> Callable[[int, TurnKind, int], Answer]:
    def answers(number: int, kind: TurnKind, d: int) -> Answer:
        if kind not in ("first_ask", "re_ask"):
            return plain(number, kind)
        return right(number) if rng.random() < p else wrong(number)

    return answers


def forgets(number: int, kind: TurnKind, d: int) -> Answer:
    if kind in ("first_ask", "re_ask"):
        return right(number) if d <= FORGETS_AFTER else wrong(number)
    return plain(number, kind)


def never_closes(number: int, kind: TurnKind, d: int) -> Answer:
    return unclosed(number)


def copies_the_old_value(number: int, kind: TurnKind, d: int) -> Answer:
    """Right at first; later it gives the sibling's value."""
    return wrong(number) if kind == "re_ask" else always_right(number, kind, d)


def recalls_at_random(
    num_clauses: int, p_ordinary: float, rng: np.random.Generator
) -> Callable[[int, TurnKind, int], Answer]:
    """Looks up a random clause on every ask, and on ordinary turns with a probability."""

    def answers(number: int, kind: TurnKind, d: int) -> Answer:
        if kind == "unanswerable" or (kind == "ordinary" and rng.random() >= p_ordinary):
            return plain(number, kind)
        found = int(rng.integers(num_clauses))
        lookup = Lookup(f"c{found}", 0.5, clause(found))
        return answer(recall_raw(clause(found), f"{100 + found} euros"), (lookup,))

    return answers


def timed(
    method: str,
    question_id: str,
    round_: int = 0,
    *,
    total_s: float = 1.0,
    ttft_s: float = 0.1,
    ttfa_s: float = 0.7,
    new_tokens: int = 10,
    prompt_tokens: int = 50,
    peak_bytes: int = 1000,
    memory_kind: str = "rss",
    stage_s: dict[str, float] | None = None,
    seed: int = 0,
    number: int = 0,
    final: str | None = None,
) -> CostRecord:
    """An answer to `question(number)`, right unless `final` says otherwise; a family a question id."""
    usage = Usage(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        ttft_s=ttft_s,
        ttfa_s=ttfa_s,
        total_s=total_s,
        stage_s=stage_s or {},
        kv_bytes=64,
    )
    qa = question(number)
    answered = qa.answer if final is None else final
    return CostRecord(method, seed, question_id, round_, usage, peak_bytes, memory_kind, qa=qa, final=answered)
