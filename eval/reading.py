"""Reading alone: the clause is at hand, and only the question has to be understood.

Two ways in which a method comes by a clause: recited, where the answer has begun with it, and in the prompt,
between clauses that are near to it. Greedy, no fit, no lookup: what a base brings before it learns a rulebook.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.stats import Sample
from methods.answering import parts_of
from methods.backbone import Backbone
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from methods.parts import final_text, read
from methods.rag import Passage, open_book
from methods.samples import recall_pieces
from tasks.base import QA, Message, TaskData
from tasks.keys import is_correct
from tasks.reading_rules import ask, draw_passage, rules

Way = Literal["recited", "in the prompt"]
WAYS: tuple[Way, ...] = ("recited", "in the prompt")
BESIDE = 2  # clauses in the prompt beside the one that answers
MAX_NEW_TOKENS = 200
BATCH = 16


@dataclass(frozen=True)
class Asked:
    """A question with the clause that answers it, and clauses that do not."""

    qa: QA
    clause: str
    family: str  # what was drawn together
    beside: tuple[str, ...]


def of_task(task: TaskData, split: str = "dev") -> list[Asked]:
    """A task's held-out questions on one clause; beside it stand others of its family, then any, drawn by seed."""
    rng = random.Random(f"reading alone/{task.name}")
    found = []
    for qa in task.questions:
        if qa.split != split or qa.kind != "single":
            continue
        clause = task.memory(qa.memory_ids[0])
        others = [m for m in rng.sample(task.memories, len(task.memories)) if m.id != clause.id]
        nearest = sorted(others, key=lambda m: not clause.family or m.family != clause.family)
        family = clause.family or clause.id
        found.append(Asked(qa, clause.text, family, tuple(m.text for m in nearest[:BESIDE])))
    return found


def of_rules(num_rules: int, seed: int = 0) -> list[Asked]:
    """A question on each fact of held-out rules; beside it stand near misses where the rule has any."""
    rng = random.Random(f"reading alone/rules/{seed}")
    kept = [rule for rule in rules() if rule.held_out]
    drawn = [(rule, draw_passage(rng, rule)) for rule in rng.sample(kept, min(num_rules, len(kept)))]
    found = []
    for rule, passage in drawn:
        others = [p.text for r, p in rng.sample(drawn, len(drawn)) if r is not rule]
        near = [draw_passage(rng, rule, [passage])] if len(rule.variants) > 1 else []
        beside = (*(p.text for p in near), *others)[:BESIDE]
        for fact in rule.facts:
            qa = QA(
                f"{rule.name}/{fact.slot}",
                ask(rng, passage, fact, named=True),
                passage.answers[fact.slot],
                (rule.name,),
                rivals=tuple({p.answers[fact.slot] for p in near} - {passage.answers[fact.slot]}),
            )
            found.append(Asked(qa, passage.text, rule.name, beside))
    return found


def answers(backbone: Backbone, asked: Sequence[Asked], way: Way) -> list[str]:
    """The final answer to each question, its clause being at hand in this way."""
    rng = random.Random("reading alone")
    prompts, given = [], []
    for one in asked:
        messages: tuple[Message, ...] = (Message("user", one.qa.question),)
        begun: list[int] = []
        if way == "recited":
            pieces = [backbone.ids.think, "\n", *recall_pieces(backbone, one.clause, num_pads=0)]
            begun = encode_pieces(backbone.tokenizer, pieces)
        else:
            texts = rng.sample([one.clause, *one.beside], 1 + len(one.beside))
            messages = open_book(messages, [Passage("", text, 0.0) for text in texts])
        given.append(begun)
        prompts.append([*encode_prompt(backbone, messages), *begun])
    found = {}
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        outputs = generate(backbone, [prompts[n] for n in part], MAX_NEW_TOKENS)
        for n, output in zip(part, outputs, strict=True):
            found[n] = final_text(read(parts_of(backbone, [*given[n], *output.token_ids])), asked[n].clause)
    return [found[n] for n in range(len(asked))]


def read_right(backbone: Backbone, asked: Sequence[Asked], way: Way) -> Sample:
    """Which questions are answered right with the clause at hand, 1.0 or 0.0, for `eval.stats`."""
    told = answers(backbone, asked, way)
    right = [float(is_correct(text, one.qa)) for text, one in zip(told, asked, strict=True)]
    return Sample(
        np.array(right), tuple(one.family for one in asked), (0,) * len(asked), tuple(one.qa.id for one in asked)
    )
