"""The calibrated recipe's samples: what is labelled, what is injected, how often, and drawn afresh."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.mixture import CalibratedDataset, Corpus, MixtureConfig, query_epochs
from methods.samples import IGNORE, Sample, conversation_sample
from tasks.base import NO_CLAUSE_THINK, Conversation, Message, TaskData
from tasks.examples import Example, ExampleConfig, general, reading_examples

NOTHING = MixtureConfig(memory_front=0.0, memory_full=0.0, openings=0.0, queries=0.0)
NO_EXAMPLES = ExampleConfig(history_probability=0.0, sft_only=0.0, reading=0.0, unanswerable=0.0)
MIXTURE = replace(NOTHING, memory_front=2.0, memory_full=1.5)
EXAMPLES = replace(NO_EXAMPLES, sft_only=0.5, reading=0.5, unanswerable=0.5)


@pytest.fixture(autouse=True)
def quiet_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token counts more than another, but where a test says so."""
    monkeypatch.setattr("methods.recall.mixture.TRIGGER_WEIGHT", 1.0)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions whole and as they are, on clauses alone, unless a test says otherwise."""
    monkeypatch.setattr("tasks.examples.WORD_DROPOUT", 0.0)
    monkeypatch.setattr("methods.recall.mixture.QUERIES_LATER", 0.0)
    monkeypatch.setattr("methods.recall.mixture.QUERIES_READING", 0.0)


def bank_of(backbone: Backbone, task: TaskData, num_vectors: int = 1) -> MemoryBank:
    """The clauses, the null memory and the corpus's passages, as in training."""
    bank = MemoryBank(torch.zeros(backbone.facts.hidden_size), 1.0, "")
    texts = {NULL_ID: NO_CLAUSE_THINK, **{m.id: m.text for m in task.memories}}
    texts |= {e.memory_id: e.clause for e in reading_examples(task.sft)}
    vectors = torch.randn(len(texts), backbone.facts.hidden_size, generator=torch.Generator().manual_seed(0))
    bank.write(list(texts), list(texts.values()), vectors, list(vectors[:, None].expand(-1, num_vectors, -1)))
    return bank


def dataset_of(
    backbone: Backbone,
    task: TaskData,
    mixture: MixtureConfig = MIXTURE,
    drawing: ExampleConfig = EXAMPLES,
    *,
    num_vectors: int = 1,
    seed: int = 0,
    conversations: list[Conversation] | None = None,
) -> CalibratedDataset:
    corpus = Corpus.of(task.memories, task.sft, drawing)
    corpus = replace(corpus, conversations=conversations or corpus.conversations)
    return CalibratedDataset(backbone, bank_of(backbone, task, num_vectors), corpus, mixture, drawing, 384, seed)


def text_of(backbone: Backbone, ids: tuple[int, ...]) -> str:
    return str(backbone.tokenizer.decode(list(ids)))


def recalled_text(backbone: Backbone, sample: Sample, num_pads: int = 1) -> str:
    rest = sample.input_ids[sample.pad_position + num_pads :]
    return text_of(backbone, rest[: rest.index(backbone.ids.recall_end)])


def of_kind(samples: list[Sample], kind: str) -> list[Sample]:
    found = [s for s in samples if s.kind == kind]
    assert found
    return found


def about(data: CalibratedDataset, task: TaskData, sample: Sample) -> str:
    """What the sample's memory is."""
    if sample.memory_index < 0:
        return "nothing"
    memory_id = data.bank.ids[sample.memory_index]
    return (
        "clause" if memory_id in {m.id for m in task.memories} else "null" if memory_id == NULL_ID else "passage"
    )


def test_kinds_and_counts(pristine: Backbone, regs: TaskData) -> None:
    data = dataset_of(pristine, regs)
    samples = data.refresh_epoch_data()
    assert Counter((s.kind, about(data, regs, s)) for s in samples) == {
        ("memory_front", "clause"): 12,
        ("memory_full", "clause"): 9,
        ("memory_full", "null"): 3,
        ("memory_full", "passage"): 3,
        ("sft_only", "nothing"): 3,
    }
    fronts = Counter(s.memory_index for s in of_kind(samples, "memory_front"))
    assert fronts == {data.bank.index(m.id): 2 for m in regs.memories}  # spread evenly


def test_memory_full(pristine: Backbone, regs: TaskData) -> None:
    """<recall> is labelled, the pad is not, and the vector injected is that of the text that follows.

    A passage of the corpus is recalled and used, but its text is not learnt.
    """
    data = dataset_of(pristine, regs)
    ids = pristine.ids
    for sample in of_kind(data.refresh_epoch_data(), "memory_full"):
        assert sample.input_ids[sample.recall_position] == sample.labels[sample.recall_position] == ids.recall
        assert sample.pad_position == sample.recall_position + 1
        assert sample.input_ids[sample.pad_position] == ids.memory_pad
        think, end = sample.input_ids.index(ids.think), sample.input_ids.index(ids.recall_end)
        text = range(sample.pad_position + 1, end) if about(data, regs, sample) == "passage" else ()
        given = {sample.pad_position, *text}
        assert list(sample.learnt) == [i for i in range(think, len(sample)) if i not in given]
        assert all(sample.labels[i] == sample.input_ids[i] for i in sample.learnt)
        assert sample.input_ids[-1] in (ids.eos, ids.recall_end)  # a self-made question ends with its clause
        assert recalled_text(pristine, sample) == data.bank.texts[sample.memory_index]


def test_a_text_that_is_fed_is_never_predicted(pristine: Backbone, regs: TaskData) -> None:
    """Without vectors: the samples that a recall of vectors has, the text in the place of the pads, not learnt.

    That a memory is looked up is learnt, which one, and what follows its text.
    """
    mixture = replace(MIXTURE, memory_front=0.0, queries=1.0)
    recited = dataset_of(pristine, regs, mixture, num_vectors=3).refresh_epoch_data()
    quoted = dataset_of(pristine, regs, mixture, num_vectors=0)
    ids = pristine.ids
    asked = 0
    for sample, other in zip(quoted.refresh_epoch_data(), recited, strict=True):
        assert ids.memory_pad not in sample.input_ids
        assert sample.input_ids == tuple(token for token in other.input_ids if token != ids.memory_pad)
        assert (sample.kind, sample.recall_position) == (other.kind, other.recall_position)
        assert (sample.memory_index, sample.pad_position) == (other.memory_index, -1)
        if sample.kind != "memory_full":
            assert sample == other
            continue
        asked += 1
        recall, end = sample.recall_position, sample.input_ids.index(ids.recall_end)
        assert text_of(pristine, sample.input_ids[recall + 1 : end]) == quoted.bank.texts[sample.memory_index]
        assert set(sample.labels[recall + 1 : end + 1]) == {IGNORE}
        assert sample.labels[recall] == ids.recall
        assert sample.labels[end + 1 :] == sample.input_ids[end + 1 :]
        think = sample.input_ids.index(ids.think)
        assert set(sample.labels[:think]) == {IGNORE}
        assert sample.labels[think:recall] == sample.input_ids[think:recall]
    assert asked


def test_openings_learn_how_an_ordinary_reply_begins_and_nothing_else(pristine: Backbone, regs: TaskData) -> None:
    """Cut from the sft_only sample of the same conversation; with talk before it, behind another one."""
    mixture = replace(NOTHING, openings=2.0)
    whole = {conversation_sample(pristine, c).input_ids for c in general(regs.sft)}
    for history in (0.0, 1.0):
        drawing = replace(NO_EXAMPLES, history_probability=history)
        samples = dataset_of(pristine, regs, mixture, drawing).refresh_epoch_data()
        assert len(samples) == 2 * len(regs.memories)
        for sample in samples:
            assert sample.kind == "sft_only"
            assert sample.pad_position == sample.recall_position == -1
            learnt = [i for i, label in enumerate(sample.labels) if label != IGNORE]
            assert learnt == list(range(len(sample) - 4, len(sample)))
            assert sample.input_ids[learnt[0]] == pristine.ids.think
            assert pristine.ids.recall not in sample.input_ids
            cut = any(ids[: len(sample)] == sample.input_ids for ids in whole)
            turns = text_of(pristine, sample.input_ids).count("<|im_start|>user")
            assert cut == (history == 0.0)
            assert history == 0.0 or turns > 1


def test_queries_end_at_recall_which_is_learnt_and_looks_for_their_clause(
    pristine: Backbone, regs: TaskData
) -> None:
    """Each is memory_full's sample of its question, cut behind <recall>: nothing is injected or decoded."""
    mixture = replace(NOTHING, queries=2.0)
    data = dataset_of(pristine, regs, mixture, NO_EXAMPLES)
    samples = data.refresh_epoch_data()
    assert Counter(s.memory_index for s in samples) == {data.bank.index(m.id): 2 for m in regs.memories}
    whole = [data.memory_full(e) for found in data.corpus.examples.values() for e in found]
    begun = {s.input_ids[: s.recall_position + 1]: s for s in whole}
    for sample in samples:
        full = begun[sample.input_ids]
        assert (sample.kind, sample.pad_position) == ("query", -1)
        assert sample.recall_position == full.recall_position == len(sample) - 1
        assert sample.labels == full.labels[: len(sample)]
        assert sample.labels[-1] == pristine.ids.recall
        assert sample.memory_index == full.memory_index


def test_queries_put_as_later_turns_stand_behind_their_own_exchange_or_a_siblings(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as asked; each looks for its clause all the same."""
    mixture = replace(NOTHING, queries=8.0)

    def drawn(share: float) -> tuple[CalibratedDataset, list[Sample]]:
        monkeypatch.setattr("methods.recall.mixture.QUERIES_LATER", share)
        data = dataset_of(pristine, regs, mixture, NO_EXAMPLES)
        return data, data.refresh_epoch_data()

    known = {text_of(pristine, sample.input_ids) for sample in drawn(0.0)[1]}
    for share in (0.0, 1.0):
        data, samples = drawn(share)
        assert Counter(s.memory_index for s in samples) == {data.bank.index(m.id): 8 for m in regs.memories}
        assert all(s.labels[-1] == pristine.ids.recall for s in samples)
        put = [s for s in samples if text_of(pristine, s.input_ids) not in known]
        answered_by = [e.answer for found in data.corpus.examples.values() for e in found if e.answer]
        behind = [s for s in put if any(answer in text_of(pristine, s.input_ids) for answer in answered_by)]
        assert (bool(put), bool(behind)) == (share == 1.0, share == 1.0)


def test_queries_are_also_on_passages_as_many_as_asked(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.recall.mixture.QUERIES_LATER", 1.0)
    monkeypatch.setattr("methods.recall.mixture.QUERIES_READING", 0.5)
    data = dataset_of(pristine, regs, replace(NOTHING, queries=2.0), NO_EXAMPLES)
    samples = data.refresh_epoch_data()
    about_what = Counter(about(data, regs, s) for s in samples)
    assert about_what == {"clause": 2 * len(regs.memories), "passage": len(regs.memories)}
    passages = [s for s in samples if about(data, regs, s) == "passage"]
    answers: dict[int, list[str]] = {}
    for example in data.corpus.reading:
        answers.setdefault(data.bank.index(example.memory_id), []).append(example.answer)
    for sample in passages:  # asked before
        assert any(answer in text_of(pristine, sample.input_ids) for answer in answers[sample.memory_index])


def test_what_decides_whether_to_recall_counts_more(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token a reply: <recall>, or what an ordinary reply has in its place. No other weight is changed."""
    mixture = replace(MIXTURE, openings=1.0, queries=1.0)
    plain = dataset_of(pristine, regs, mixture).refresh_epoch_data()
    monkeypatch.setattr("methods.recall.mixture.TRIGGER_WEIGHT", 5.0)
    loud = dataset_of(pristine, regs, mixture).refresh_epoch_data()
    for before, after in zip(plain, loud, strict=True):
        assert replace(after, loss_weights=before.loss_weights) == before
        weights = before.loss_weights or (1.0,) * len(before)
        louder = [i for i, (a, b) in enumerate(zip(weights, after.loss_weights or weights, strict=True)) if a != b]
        if after.kind == "memory_front":  # what stands before a memory there decides nothing
            assert louder == []
            continue
        (place,) = louder
        assert after.loss_weights[place] == 5.0 * weights[place]
        assert (after.labels[place] == pristine.ids.recall) == (after.kind != "sft_only")
        assert after.labels[place - 2] == pristine.ids.think


def test_every_vector_of_a_memory_has_its_pad(pristine: Backbone, regs: TaskData) -> None:
    """No pad is learnt; the text begins behind the last one, and is not learnt where it is a passage's."""
    data = dataset_of(pristine, regs, num_vectors=3)
    samples = data.refresh_epoch_data()
    for sample in (*of_kind(samples, "memory_full"), *of_kind(samples, "memory_front")):
        pads = range(sample.pad_position, sample.pad_position + 3)
        assert [i for i, token in enumerate(sample.input_ids) if token == pristine.ids.memory_pad] == list(pads)
        assert all(sample.labels[i] == IGNORE for i in pads)
        assert recalled_text(pristine, sample, 3) == data.bank.texts[sample.memory_index]
    for sample in of_kind(samples, "memory_full"):
        text = range(sample.pad_position + 3, sample.input_ids.index(pristine.ids.recall_end))
        silent = list(text) if about(data, regs, sample) == "passage" else []
        begin = sample.input_ids.index(pristine.ids.think)
        given = [i for i in range(begin, len(sample)) if sample.labels[i] == IGNORE]
        assert given == [*range(sample.pad_position, sample.pad_position + 3), *silent]


def test_a_self_made_question_teaches_no_answer(pristine: Backbone, regs: TaskData) -> None:
    data = dataset_of(pristine, regs)
    for found in data.corpus.examples.values():
        for example in found:
            last = data.memory_full(example).input_ids[-1]
            assert last == (pristine.ids.eos if example.answer else pristine.ids.recall_end)


def test_memory_front(pristine: Backbone, regs: TaskData) -> None:
    """After a context that is not about the clause: only the text is learnt, not the wish to recall."""
    data = dataset_of(pristine, regs)
    ids = pristine.ids
    for sample in of_kind(data.refresh_epoch_data(), "memory_front"):
        assert sample.recall_position == -1  # no query is trained here
        assert sample.input_ids[sample.pad_position - 1 : sample.pad_position + 1] == (ids.recall, ids.memory_pad)
        assert set(sample.labels[: sample.pad_position + 1]) == {IGNORE}
        assert sample.labels[sample.pad_position + 1 :] == sample.input_ids[sample.pad_position + 1 :]
        assert sample.input_ids[-1] == ids.recall_end
        assert recalled_text(pristine, sample) == data.bank.texts[sample.memory_index]


def test_memory_front_alone_learns_to_recall(pristine: Backbone, regs: TaskData) -> None:
    """Where no other sample teaches to recall, all of the reply has a label but the pad."""
    for mixture, alone in (
        (replace(NOTHING, memory_front=2.0), True),
        (replace(NOTHING, memory_front=2.0, queries=0.5), False),
        (MIXTURE, False),
    ):
        for sample in of_kind(dataset_of(pristine, regs, mixture).refresh_epoch_data(), "memory_front"):
            think = sample.input_ids.index(pristine.ids.think)
            begins = think if alone else sample.pad_position
            learnt = [i for i, label in enumerate(sample.labels) if label != IGNORE]
            assert learnt == [i for i in range(begins, len(sample)) if i != sample.pad_position]
            assert sample.recall_position == -1


@pytest.mark.parametrize("other_question", [0.0, 1.0])
def test_a_front_context_is_never_about_its_clause(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch, other_question: float
) -> None:
    monkeypatch.setattr("methods.recall.mixture.FRONT_OTHER_QUESTION", other_question)
    data = dataset_of(pristine, regs)
    questions = {key: {e.messages[-1].content for e in found} for key, found in data.corpus.examples.items()}
    for sample in of_kind(data.refresh_epoch_data(), "memory_front"):
        context = text_of(pristine, sample.input_ids[: sample.pad_position])
        asked_about = {key for key, asked in questions.items() if any(question in context for question in asked)}
        assert data.bank.ids[sample.memory_index] not in asked_about
        assert bool(asked_about) == (other_question == 1.0)


def test_sft_only(pristine: Backbone, regs: TaskData) -> None:
    ids = pristine.ids
    for sample in of_kind(dataset_of(pristine, regs).refresh_epoch_data(), "sft_only"):
        assert not {ids.recall, ids.memory_pad, ids.recall_end} & set(sample.input_ids)
        assert (sample.recall_position, sample.pad_position, sample.memory_index) == (-1, -1, -1)
        think = sample.input_ids.index(ids.think)
        assert set(sample.labels[:think]) == {IGNORE}
        assert sample.labels[think:] == sample.input_ids[think:]
        assert sample.input_ids[-1] == ids.eos


def test_only_the_last_reply_is_learnt_and_no_think_stands_before_it(pristine: Backbone, regs: TaskData) -> None:
    longer = [c for c in regs.sft if len(c.messages) > 2]
    assert longer
    for conversation in longer:
        sample = conversation_sample(pristine, conversation)
        think = sample.input_ids.index(pristine.ids.think)
        assert set(sample.labels[:think]) == {IGNORE}
        assert "<think>" not in text_of(pristine, sample.input_ids[:think])
        assert sample.input_ids.count(pristine.ids.think) == 1
        reply = text_of(pristine, sample.input_ids[think:]).removesuffix("<|im_end|>")
        assert reply == conversation.messages[-1].content


def test_no_context_of_any_kind_holds_a_think(
    pristine: Backbone, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does any history that a method is asked with."""
    monkeypatch.setattr("methods.recall.mixture.FRONT_OTHER_QUESTION", 0.0)
    longer = [c for c in general(regs.sft) if len(c.messages) > 2]
    drawing = replace(EXAMPLES, history_probability=1.0)
    mixture = replace(MIXTURE, memory_front=1.0)
    samples = dataset_of(pristine, regs, mixture, drawing, conversations=longer).refresh_epoch_data()
    assert {s.kind for s in samples} == {"memory_front", "memory_full", "sft_only"}
    for sample in samples:
        context = text_of(pristine, sample.input_ids[: sample.input_ids.index(pristine.ids.think)])
        assert "<|im_start|>assistant" in context.removesuffix("<|im_start|>assistant\n")
        assert "think>" not in context


def test_every_epoch_is_drawn_afresh(pristine: Backbone, regs: TaskData) -> None:
    data = dataset_of(pristine, regs)
    one, two = data.refresh_epoch_data(), data.refresh_epoch_data()
    for kind in ("memory_front", "memory_full", "sft_only"):
        assert {s.input_ids for s in of_kind(one, kind)} != {s.input_ids for s in of_kind(two, kind)}
    epochs = data.epochs()
    assert next(epochs) != next(epochs)


def test_every_question_is_asked_before_any_is_asked_again(pristine: Backbone, regs: TaskData) -> None:
    data = dataset_of(pristine, regs, replace(MIXTURE, memory_full=1.0), replace(EXAMPLES, unanswerable=0.0))
    for key, found in data.corpus.examples.items():
        asked = [
            sample.input_ids
            for _ in range(len(found))
            for sample in of_kind(data.refresh_epoch_data(), "memory_full")
            if data.bank.ids[sample.memory_index] == key
        ]
        assert len(asked) == len(set(asked)) == len(found)
        data._decks.clear()


def test_one_seed_one_draw(pristine: Backbone, regs: TaskData) -> None:
    def draw(seed: int) -> list[Sample]:
        data = dataset_of(pristine, regs, drawing=replace(EXAMPLES, history_probability=0.5), seed=seed)
        return [sample for batches in itertools.islice(data.epochs(), 2) for batch in batches for sample in batch]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_history_stands_before_the_question(pristine: Backbone, regs: TaskData) -> None:
    def turns(history: float) -> set[int]:
        data = dataset_of(pristine, regs, drawing=replace(EXAMPLES, history_probability=history))
        samples = of_kind(data.refresh_epoch_data(), "memory_full")
        return {text_of(pristine, s.input_ids).count("<|im_start|>user") for s in samples}

    assert turns(0.0) == {1}
    assert min(turns(1.0)) >= 2


def conversations_of(lengths: list[int]) -> list[Conversation]:
    return [
        Conversation(f"c{i}", (Message("user", "q"), Message("assistant", f"<think>\n{'x' * n}\n</think>\nA")))
        for i, n in enumerate(lengths)
    ]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations may have 120 tokens."""
    monkeypatch.setattr("methods.recall.mixture.SFT_MAX_TOKENS", 120)


def test_too_long_conversations_are_replaced(pristine: Backbone, regs: TaskData, short: None) -> None:
    data = dataset_of(pristine, regs, conversations=conversations_of([10, 900] * 12))
    for _ in range(5):
        chosen = data.sampler._sample_sft_for_epoch(12)
        assert sorted(chosen) == list(range(0, 24, 2))
        assert all(len(s) <= 120 for s in of_kind(data.refresh_epoch_data(), "sft_only"))


def test_fewer_conversations_than_samples_come_again_once_all_have_come(
    pristine: Backbone, regs: TaskData, short: None
) -> None:
    """12 contexts an epoch out of 5 that fit: each comes twice, two of them a third time."""
    data = dataset_of(pristine, regs, conversations=conversations_of([10, 900] * 5))
    data.check()
    draws = [data.sampler._sample_sft_for_epoch(12) for _ in range(3)]
    for chosen in draws:
        assert set(chosen) == {0, 2, 4, 6, 8}
        assert len(set(chosen[:5])) == len(set(chosen[5:10])) == 5
        assert sorted(Counter(chosen).values()) == [2, 2, 2, 3, 3]
    assert draws[0] != draws[1]
    assert Counter(s.kind for s in data.refresh_epoch_data())["memory_front"] == 12


def test_an_epoch_that_cannot_be_drawn_is_named_with_the_numbers(
    pristine: Backbone, regs: TaskData, short: None
) -> None:
    data = dataset_of(pristine, regs, conversations=conversations_of([900] * 3))
    said = "needs 12 SFT conversations of at most 120 tokens an epoch and found 0 of 3; take shorter ones"
    for refused in (data.check, data.refresh_epoch_data):
        with pytest.raises(MethodError, match=said):
            refused()
    with pytest.raises(MethodError, match="an epoch would hold no sample"):
        dataset_of(pristine, regs, NOTHING, NO_EXAMPLES).check()


@pytest.mark.parametrize("name", [f.name for f in fields(MixtureConfig)])
def test_parts_that_mean_nothing_are_named(name: str) -> None:
    with pytest.raises(MethodError, match=rf"mixture\.{name}=-0.1 is below 0"):
        MixtureConfig(**{name: -0.1})


def test_original_indices_types_positions_and_lengths_are_logged(
    pristine: Backbone, regs: TaskData, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the specification's own dataset."""
    with caplog.at_level(logging.DEBUG, "methods.recall.mixture"):
        samples = dataset_of(pristine, regs).refresh_epoch_data()
    for name in ("memory_front", "sft_only"):
        assert f"{name} original indices [" in caplog.text
    for sample in samples:
        assert f"{sample.kind}: memory at {sample.pad_position}, {len(sample)} tokens" in caplog.text


def test_a_clause_without_questions_is_recited_but_not_asked(pristine: Backbone, regs: TaskData) -> None:
    data = dataset_of(pristine, regs, drawing=replace(EXAMPLES, self_cues=0))
    uncued = {data.bank.index(m.id) for m in regs.memories if not m.cued}
    assert uncued
    samples = data.refresh_epoch_data()
    assert not uncued & {s.memory_index for s in of_kind(samples, "memory_full")}
    assert uncued <= {s.memory_index for s in of_kind(samples, "memory_front")}


# Step 1.


def test_queries_end_in_recall_and_learn_no_token(pristine: Backbone, regs: TaskData) -> None:
    bank, corpus = bank_of(pristine, regs), Corpus.of(regs.memories, regs.sft, EXAMPLES)
    examples, null, reading = corpus.examples, corpus.unanswerable, corpus.reading
    epochs = query_epochs(pristine, bank, corpus, EXAMPLES, 384, seed=0)
    pool = [e for found in (*examples.values(), reading, null) for e in found]
    owners: dict[str, set[str]] = {}  # one wording may be asked of several passages
    for example in pool:
        owners.setdefault(example.messages[-1].content, set()).add(example.memory_id)
    clauses = {m.id for m in regs.memories}
    for _ in range(2):
        samples = [sample for batch in next(epochs) for sample in batch]
        asked = Counter(bank.ids[s.memory_index] for s in samples)
        num_examples = sum(map(len, examples.values()))
        assert {key: asked[key] for key in clauses} == {key: len(found) for key, found in examples.items()}
        assert asked[NULL_ID] >= 2
        assert sum(asked.values()) - asked[NULL_ID] == num_examples + min(num_examples, len(reading))
        for sample in samples:
            assert set(sample.labels) == {IGNORE}
            assert sample.recall_position == len(sample) - 1
            assert sample.input_ids[-1] == pristine.ids.recall
            question = text_of(pristine, sample.input_ids).split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
            assert bank.ids[sample.memory_index] in owners[question]


def test_an_example_names_its_memory(pristine: Backbone, regs: TaskData) -> None:
    example = Example((Message("user", "q"),), "no such id", "text", "", "a")
    with pytest.raises(KeyError, match="no such id"):
        dataset_of(pristine, regs).memory_full(example)


def test_passages_are_memories_once_each(regs: TaskData) -> None:
    corpus = Corpus.of(regs.memories, regs.sft, EXAMPLES)
    assert {(m.id, m.text) for m in corpus.passages} == {(e.memory_id, e.clause) for e in corpus.reading}
    assert len({m.id for m in corpus.passages}) == len(corpus.passages) > 10


def test_rng_is_the_datasets_own(pristine: Backbone, regs: TaskData) -> None:
    """The global generator neither decides nor is moved."""
    random.seed(5)
    state = random.getstate()
    dataset_of(pristine, regs).refresh_epoch_data()
    assert random.getstate() == state
