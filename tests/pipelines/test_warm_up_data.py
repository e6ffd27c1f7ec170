"""What a warm-up trains on: the forms, what is learnt of each, and that nothing held out is among it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from operator import is_

import pytest

from methods.backbone import Backbone
from methods.batches import row_tokens
from methods.samples import IGNORE, Sample
from pipelines.warm_up_data import PASSAGES, WarmUpData, recited
from tasks.base import NO_CLAUSE_ANSWER, Message
from tasks.examples import Example
from tasks.reading_rules import rules

EXAMPLE = Example((Message("user", "How long?"),), "m", "A film stays 7 days.", "It says 7 days.", "7 days")
SOURCES = {
    "passages recited",
    "passages in the prompt",
    "passages in the talk",
    "nothing there answers",
    "ordinary conversations",
}


def learnt(backbone: Backbone, sample: Sample) -> str:
    return str(backbone.tokenizer.decode([label for label in sample.labels if label != IGNORE]))


def text_of(backbone: Backbone, sample: Sample) -> str:
    return str(backbone.tokenizer.decode(sample.input_ids))


@pytest.fixture(scope="module")
def groups(pristine: Backbone) -> list[list[Sample]]:
    return WarmUpData(pristine, 1024, seed=0).epoch()


@pytest.fixture(scope="module")
def epoch(pristine: Backbone) -> list[Sample]:
    """Three of them: what is drawn a passage at a time, such as declining, need not come in each."""
    data = WarmUpData(pristine, 1024, seed=0)
    return [sample for _ in range(3) for group in data.epoch() for sample in group]


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("reasoning", ["It says 7 days.", ""])
def test_a_recited_text_is_given_and_what_follows_is_learnt(tiny: Backbone, marked: bool, reasoning: str) -> None:
    sample = recited(tiny, replace(EXAMPLE, reasoning=reasoning), marked)
    between = f"\n{reasoning}" if reasoning else ""
    assert learnt(tiny, sample) == f"{between}\n</think>\n7 days<|im_end|>"
    begun = "<recall>A film stays 7 days.</recall>" if marked else "A film stays 7 days."
    assert f"<think>\n{begun}\n" in text_of(tiny, sample)


def test_every_form_comes_and_all_facts_of_a_passage_with_it(pristine: Backbone, epoch: list[Sample]) -> None:
    counts = Counter(sample.source for sample in epoch)
    assert set(counts) == SOURCES
    asked = sum(counts.values()) - counts["ordinary conversations"]
    assert asked >= 2 * PASSAGES
    texts = "\n".join(text_of(pristine, sample) for sample in epoch)
    assert texts.count("Handbook clauses:") >= counts["passages in the prompt"]


def test_what_nothing_answers_is_declined(pristine: Backbone, epoch: list[Sample]) -> None:
    declined = [learnt(pristine, s) for s in epoch if s.source == "nothing there answers"]
    assert declined
    assert all(NO_CLAUSE_ANSWER in text for text in declined)


def test_the_prompt_is_never_learnt(pristine: Backbone, epoch: list[Sample]) -> None:
    for sample in epoch:
        header = len(sample.labels) - next(n for n, x in enumerate(sample.labels) if x != IGNORE)
        assert "<|im_start|>" not in pristine.tokenizer.decode(sample.input_ids[-header:])


def test_the_same_seed_draws_the_same(pristine: Backbone, groups: list[list[Sample]]) -> None:
    assert WarmUpData(pristine, 1024, seed=0).epoch() == groups
    assert WarmUpData(pristine, 1024, seed=1).epoch() != groups


def test_a_batch_is_whole_groups_and_not_over_its_tokens(pristine: Backbone, groups: list[list[Sample]]) -> None:
    """Questions on one passage come together, so that what they begin with is computed once."""
    batches = WarmUpData(pristine, 1024, seed=0).batches(groups)
    assert sorted(id(s) for batch in batches for s in batch) == sorted(id(s) for group in groups for s in group)
    whole = {id(group[0]): group for group in groups}
    for batch in batches:
        parts, rest = [], batch
        while rest:
            parts.append(whole[id(rest[0])])
            assert all(map(is_, rest, parts[-1]))
            rest = rest[len(parts[-1]) :]
        assert len(parts) == 1 or sum(map(row_tokens, parts)) <= 1024


def test_a_prompt_is_computed_once_for_the_questions_behind_it(groups: list[list[Sample]]) -> None:
    behind = [group for group in groups if group[0].source == "passages in the prompt"]
    assert behind
    assert sum(map(row_tokens, behind)) < 0.7 * sum(len(sample) for group in behind for sample in group)


def test_nothing_held_out_is_trained_on(pristine: Backbone) -> None:
    data = WarmUpData(pristine, 1024, seed=0)
    drawn = [data.epoch() for _ in range(3)]
    beginnings = [rule.text.partition("{")[0] for rule in rules() if rule.held_out]
    told = "\n".join(text_of(pristine, sample) for groups in drawn for group in groups for sample in group)
    assert not [text for text in beginnings if len(text.split()) > 4 and text in told]
