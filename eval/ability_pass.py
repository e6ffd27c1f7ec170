"""The ability pass: the tasks of `eval.ability`, and lm-eval's own by name, on the live models of a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval import harness
from eval.ability import GENERATION, MULTIPLE_CHOICE, Item, generation_items, multiple_choice_items
from eval.harness import Injection
from eval.records import AbilityArm, AbilityRecord
from methods.backbone import Backbone
from methods.base import Method, MethodError
from tasks.base import TaskData

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class _Stage:
    """One task in one arm."""

    arm: AbilityArm
    task: str
    backbone: Backbone
    item_ids: tuple[str, ...]
    injections: Mapping[str, Injection] | None = None  # question -> what is put in context


def run_ability(
    method: Method,
    before: Backbone,
    task: TaskData,
    *,
    seed: int,
    num_items: int = 400,
    progress: Progress | None = None,
    done: Sequence[AbilityRecord] = (),
    named_tasks: Mapping[str, Any] | None = None,
    max_new_tokens: int = 192,
    batch_size: int = 8,
) -> Iterator[list[AbilityRecord]]:
    """Yields the records of one task in one arm after the other.

    method: fitted; its `backbone` is measured, and its `bank`, where it has one, gives the vectors in
    context. before: the untouched backbone. num_items: of each task. done: records that exist already, of
    this method (they are not yielded again) or of another one with the same seed, whose "before" is copied
    in place of measuring the same weights again. named_tasks: from `eval.harness.load_named_tasks`.
    Greedy throughout: nothing is drawn but the items and the vectors. To run before anything is written to
    the bank or forgotten. Raises MethodError for a method without a backbone.
    """
    fitted: Backbone | None = getattr(method, "backbone", None)
    if fitted is None:
        raise MethodError(f"{method.name}: it has no backbone, so its ordinary ability cannot be measured")
    choices = multiple_choice_items(task, seed, num_items)
    questions = generation_items(task, seed, num_items)
    sizes = {name: harness.num_docs(loaded, num_items) for name, loaded in (named_tasks or {}).items()}
    ids = {MULTIPLE_CHOICE: tuple(i.id for i in choices), GENERATION: tuple(i.id for i in questions)}
    ids |= {name: tuple(f"{name}/{n}" for n in range(size)) for name, size in sizes.items()}

    arms: tuple[tuple[AbilityArm, Backbone], ...] = (("before", before), ("after", fitted))
    stages = [_Stage(arm, name, backbone, ids[name]) for arm, backbone in arms for name in ids]
    bank = getattr(method, "bank", None)
    if bank is not None and bank.num_vectors:  # a memory that is fed as its text has none
        asked = [item.question for item in choices]
        vectors: tuple[tuple[AbilityArm, Mapping[str, Injection]], ...] = (
            ("with_memory", harness.memory_injections(bank, asked, seed)),
            ("with_random", harness.random_injections(bank, asked, seed)),
        )
        stages += [_Stage(arm, MULTIPLE_CHOICE, fitted, ids[MULTIPLE_CHOICE], found) for arm, found in vectors]

    def measure(stage: _Stage) -> list[AbilityRecord]:
        def record(item: Item, **found: Any) -> AbilityRecord:
            return AbilityRecord(
                method.name, seed, stage.arm, stage.task, item.id, item.question, item.gold, item.topic, **found
            )

        if stage.task == MULTIPLE_CHOICE:
            lm = harness.ChatLM(stage.backbone, batch_size, stage.injections)
            owners = {question: found.memory_id for question, found in (stage.injections or {}).items()}
            return [
                record(item, choices=item.choices, log_likelihoods=values, memory_id=owners.get(item.question, ""))
                for item, values in zip(choices, harness.rank_choices(lm, choices), strict=True)
            ]
        if stage.task == GENERATION:
            lm = harness.ChatLM(stage.backbone, 4 * batch_size)
            outputs = harness.answer_freely(lm, questions, max_new_tokens)
            pairs = zip(questions, outputs, strict=True)
            return [record(item, output=output, chain=item.chain) for item, output in pairs]
        plain = harness.PlainLM(stage.backbone, batch_size)
        scored = harness.score_named(plain, stage.task, (named_tasks or {})[stage.task], seed, num_items)
        return [record(item, score=score) for item, score in scored]

    known = {record.id for record in done}
    others = {(r.task, r.item_id): r for r in done if r.arm == "before" and r.seed == seed}
    for number, stage in enumerate(stages):
        if progress is not None:
            progress(f"{method.name}: ability", number, len(stages))
        copies = [others.get((stage.task, item_id)) for item_id in stage.item_ids if stage.arm == "before"]
        if copies and all(copies):
            records = [replace(copy, method=method.name) for copy in copies if copy is not None]
        elif all(f"{method.name}/{seed}/{stage.arm}/{stage.task}/{i}" in known for i in stage.item_ids):
            continue
        else:
            records = measure(stage)
        fresh = [record for record in records if record.id not in known]
        if fresh:
            yield fresh
    if progress is not None:
        progress(f"{method.name}: ability", len(stages), len(stages))
