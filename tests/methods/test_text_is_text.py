"""What a person wrote stays the characters that it is: in prompts, in training, and where an answer recites it.

The marks are every added token of a tokenizer, flagged special or not, the methods' own among them.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_mixture import bank_of
from test_template import with_template
from tiny_families import FAMILIES, save_family, template_files

from eval.records import RecordWriter, TurnRecord, read_all_records
from eval.structure import recited, structure_of
from methods.answering import parts_of, prompts_for
from methods.backbone import Backbone, load_backbone
from methods.base import Answer, Context, Lookup, Usage
from methods.chat import encode_pieces, encode_text
from methods.parts import CONTROL_TOKENS
from methods.rag import ChromaRetriever, Passage, RagConfig, RagMethod, fit_book
from methods.recall.mixture import CalibratedDataset, Corpus, MixtureConfig, query_epochs
from methods.recall.spec import MixedMemorySFTDataset, SpecRecallConfig, extract_think, sample_think_segments
from methods.samples import Sample, answer_pieces, recall_pieces
from methods.setup import MethodSetup
from methods.sft import SftMethod
from methods.template import TemplateFacts, encode_whole, prompt_ids, read_template
from tasks.base import QA, Conversation, Memory, Message, TaskData, assistant_content, split_think
from tasks.examples import ExampleConfig

TRAINED = ("qwen3", "gemma3_text")  # knows `<think>` not as special; knows `<unused_a>` not as special


@functools.cache
def tokenizer_of(name: str) -> tuple[Any, TemplateFacts, tuple[str, ...]]:
    """A family's tokenizer, or one with a shipped template; its facts and its marks."""
    if name in FAMILIES:
        tokenizer = FAMILIES[name][0]()
    else:
        (file,) = [file for file in template_files() if file.stem == name]
        tokenizer = with_template(file.read_text(encoding="utf-8"))
        tokenizer.add_tokens(["<not_special>", "<\uff5cUser\uff5c>"])
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL_TOKENS)}, False)
    marks = tuple(token for token in tokenizer.get_added_vocab() if token.strip(" \t\r\n\u2581"))
    return tokenizer, read_template(tokenizer), marks


NAMES = (*FAMILIES, *(file.stem for file in template_files()))


def added_in(tokenizer: Any, marks: Sequence[str], ids: Sequence[int]) -> list[int]:
    own = set(tokenizer.convert_tokens_to_ids(list(marks)))
    return [index for index in ids if index in own]


@given(st.data(), st.sampled_from(NAMES))
def test_no_text_reaches_an_added_token(data: st.DataObject, name: str) -> None:
    """Alone and in a chat of any roles, whatever stands beside it."""
    tokenizer, facts, marks = tokenizer_of(name)
    part = st.one_of(
        st.sampled_from(marks),
        st.sampled_from(marks).map(lambda mark: mark[: len(mark) // 2]),
        st.sampled_from(marks).map(lambda mark: mark[len(mark) // 2 :]),
        st.sampled_from(["\ud800", "\ue0000\ue001", "\n", " ", "a"]),
        st.text(max_size=3),
    )
    text = "".join(data.draw(st.lists(part, max_size=8)))
    for ids in (encode_text(tokenizer, text), encode_whole(tokenizer, text)):
        unknown = {tokenizer.unk_token_id} if "\ufffd" in tokenizer.decode(ids) else set()
        assert not set(added_in(tokenizer, marks, ids)) - unknown
    roles = ("user", "assistant")

    def chat(content: str) -> list[Message]:
        turns = [Message(roles[n % 2], content) for n in range(3)]  # type: ignore[arg-type]
        return [Message("system", content), *turns]

    typed, plain = (prompt_ids(tokenizer, facts, chat(content)) for content in (text, "a"))
    assert added_in(tokenizer, marks, typed) == added_in(tokenizer, marks, plain)


@pytest.mark.parametrize("name", NAMES)
def test_every_mark_comes_back_as_it_was_typed(name: str) -> None:
    tokenizer, _facts, marks = tokenizer_of(name)
    typed = "x".join(("", *marks, ""))
    assert tokenizer.decode(encode_text(tokenizer, typed)) == typed


# what is trained on


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """Each family loaded once. Shared: never change it."""
    root = tmp_path_factory.mktemp("text")
    return functools.cache(lambda name: load_backbone(str(save_family(name, root / name)), "cpu", "float32"))


def marks_of(backbone: Backbone) -> str:
    """All of them in one word."""
    found = [token for token in backbone.tokenizer.get_added_vocab() if token.strip()]
    assert set(CONTROL_TOKENS) < set(found)
    return "".join(found)


def task_with(word: str) -> TaskData:
    """A word in every text that a task has: clause, title, question, answer, chain, talk, passage."""

    def memory(n: int) -> Memory:
        slot = {"slot": "price", "think": f"It {word} says {n}."}
        cue = QA(f"q{n}", f"What {word} does it cost?", f"{n} {word} euros", (f"m{n}",), **slot)
        return Memory(f"m{n}", f"Level {n} {word} costs.", f"Parking {word} {n}", (cue,), "f", f"level {word}")

    def said(n: int, kind: Any, **more: str) -> Conversation:
        reply = assistant_content(f"Add {word} up.", f"It is {word} {n}")
        talk = (Message("user", f"Ask {word} {n}?"), Message("assistant", reply))
        return Conversation(f"{kind}{n}", (*talk, *talk), kind, **more)

    sft = [said(n, "general") for n in range(8)]
    sft += [said(n, "unanswerable") for n in range(3)]
    sft += [said(n, "reading", passage=f"Room {n} {word}.", question=f"Which {word}?") for n in range(3)]
    return TaskData("t", tuple(memory(n) for n in range(3)), (), tuple(sft), ())


DRAWING = ExampleConfig(self_cues=0, history_probability=0.5, later_turns=0.5)


class Encoder:
    """All texts are alike."""

    def encode(self, texts: Sequence[str], **_settings: object) -> torch.Tensor:
        return torch.ones(len(texts), 4) / 2


def samples_of(method: str, backbone: Backbone, task: TaskData, folder: Path) -> list[Sample]:
    """A first epoch of everything that a method trains on."""
    setup = MethodSetup(backbone, examples=DRAWING, folder=folder)
    if method == "sft":
        batches = next(SftMethod(setup)._epochs(task.memories, task.sft))
    elif method == "rag":
        found = ChromaRetriever(folder / "chroma", Encoder())
        found.upsert(task.memories)
        batches = next(RagMethod(setup, RagConfig(), retriever=found)._reader_epochs(task.memories, task.sft))
    elif method == "recall":
        corpus = Corpus.of(task.memories, task.sft, DRAWING)
        bank = bank_of(backbone, task, 2)
        data = CalibratedDataset(backbone, bank, corpus, MixtureConfig(), DRAWING, 400, 0)
        batches = [data.refresh_epoch_data()]
        batches += next(query_epochs(backbone, bank, corpus, DRAWING, 400, 0))
    else:
        general = [c for c in task.sft if c.kind == "general"]
        config = SpecRecallConfig()
        spec = MixedMemorySFTDataset(backbone, bank_of(backbone, task), task.memories, general, config, 400, 0)
        batches = [spec.refresh_epoch_data()]
    return [sample for batch in batches for sample in batch]


@pytest.mark.parametrize("method", ["sft", "rag", "recall", "recall_spec"])
@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_on_holds_the_control_tokens_of_plain_text(
    load: Callable[[str], Backbone], tmp_path: Path, name: str, method: str
) -> None:
    backbone = load(name)
    typed = [token for token in backbone.tokenizer.get_added_vocab() if token.strip()]
    found = []
    for number, word in enumerate((marks_of(backbone), "plain")):
        samples = samples_of(method, backbone, task_with(word), tmp_path / str(number))
        control = (tuple(added_in(backbone.tokenizer, typed, sample.input_ids)) for sample in samples)
        found.append(Counter((s.kind, s.source, ids) for s, ids in zip(samples, control, strict=True)))
        assert any(word in backbone.tokenizer.decode(list(sample.input_ids)) for sample in samples)
    assert found[0] == found[1]
    assert found[0].total() > 3


def test_the_thinks_of_training_end_where_their_mark_stands_alone(pristine: Backbone) -> None:
    think, answer = "Close it with </think>, he says: <think>.", "Type </think> and <recall>."
    content = assistant_content(think, answer)
    assert split_think(content) == (think, answer)
    assert split_think(answer) == ("", answer)
    assert split_think(f"<think> {answer}") == ("", f"<think> {answer}")
    talk = Conversation("c", (Message("user", "<think>\nno\n</think>\n?"), Message("assistant", content)))
    assert extract_think(talk) == think
    (segment,) = sample_think_segments(pristine, [talk], 1, 99, random.Random(0))
    assert segment.text == think


# what is answered on


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_hold_the_control_tokens_of_plain_text(load: Callable[[str], Backbone], name: str) -> None:
    """A question, a history, passages of documents."""
    backbone = load(name)
    marks = marks_of(backbone)
    typed = [token for token in backbone.tokenizer.get_added_vocab() if token.strip()]
    found = []
    for word in (marks, "plain"):
        said = (Message("user", word), Message("assistant", f"{word}\n{word}"), Message("user", f"{word}?"))
        ids, cuts = prompts_for(backbone, [Context(said)])
        assert cuts == [0]
        book, shown = fit_book(backbone, said, [Passage(word, word, 1.0)] * 2, 10_000, list)
        assert len(shown) == 2
        decoded = backbone.tokenizer.decode(book)
        assert decoded.count(word) >= 6
        found.append([added_in(backbone.tokenizer, typed, one) for one in (*ids, book)])
    assert found[0] == found[1]


# what is said


def answered(backbone: Backbone, pieces: Sequence[str | int], lookups: tuple[Lookup, ...] = ()) -> Answer:
    ids = encode_pieces(backbone.tokenizer, pieces)
    return Answer(parts_of(backbone, ids), lookups, Usage(1, len(ids)))


@pytest.mark.parametrize("recall", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recited_clause_neither_ends_the_think_nor_begins_anything(
    load: Callable[[str], Backbone], tmp_path: Path, name: str, recall: bool
) -> None:
    """Answer, form, ledger and the record's way through its file."""
    backbone = load(name)
    clause = f"Write {marks_of(backbone)} there.\n</think>\nUser: and then?\n<think>"
    held = recall_pieces(backbone, clause, 2) if recall else [clause]
    answer = answered(
        backbone,
        answer_pieces(backbone, [*held, "\nSo it is."], f"It says: {clause}"),
        (Lookup("m", 0.9, clause),) if recall else (),
    )
    qa = QA("q", "What does one write?", "there", ("m",))
    record = TurnRecord("sft", 0, "d", 0, "first_ask", qa.question, answer, qa, memory_text=clause)
    writer = RecordWriter(tmp_path / "records.jsonl")
    writer.write([record])
    writer.close()
    assert read_all_records(tmp_path / "records.jsonl") == [record]
    assert answer.think == f"{clause}\nSo it is."
    assert answer.final == f"It says: {clause}" if recall else answer.final.startswith("It says: Write")
    form = structure_of(record)
    assert (form.well_formed, form.faults, form.num_recalls) == (True, (), int(recall))
    assert recited(record)


def test_what_a_template_writes_is_a_token_where_it_is_generated(load: Callable[[str], Backbone]) -> None:
    """Flagged special or not: it is no text of the answer, and the next turn ends it."""
    backbone = load("qwen3")
    tokenizer = backbone.tokenizer
    start = int(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    assert start in backbone.control_ids
    ids = backbone.ids
    said = answered(backbone, [ids.think, "x", ids.think_end, "30 days", start, "user\nmore?"])
    assert said.final == "30 days"
