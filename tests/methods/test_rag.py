"""Retrieval finds the clause, the index follows edits, and the reader trains on what it will see."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.arms import gold_retriever
from methods.backbone import Backbone
from methods.base import MethodError
from methods.rag import MISSING, ChromaRetriever, Passage, RagConfig, RagMethod, open_book
from methods.samples import Sample
from methods.setup import MethodSetup
from tasks.base import NO_CLAUSE_ANSWER, NO_CLAUSE_THINK, Memory, Message, TaskData
from tasks.examples import ExampleConfig, clause_examples, reading_examples

CLAUSES = (
    Memory("1", "Visitors sign the book at the north gate.", "Visitors, Cork"),
    Memory("2", "Lunch costs 7 euros in the canteen.", "Canteen, Cork"),
    Memory("3", "Bicycles are kept in the yard behind hall four.", "Bicycles, Cork"),
    Memory("4", "Parcels are handed out until 17:30.", "Parcels, Cork"),
)


def asked(*texts: str) -> tuple[Message, ...]:
    """The user's messages with replies between them."""
    messages = [m for text in texts for m in (Message("user", text), Message("assistant", "Fine."))]
    return tuple(messages[:-1])


@pytest.fixture
def retriever(tmp_path: Path, encoder: Any) -> ChromaRetriever:
    found = ChromaRetriever(tmp_path / "chroma", encoder)
    found.upsert(CLAUSES)
    return found


def ids_of(retriever: ChromaRetriever, question: str, top_k: int = 4) -> list[str]:
    return [p.memory_id for p in retriever.retrieve([asked(question)], top_k)[0][0]]


def test_the_planted_clause_is_found(retriever: ChromaRetriever) -> None:
    for memory in CLAUSES:
        passages, seconds = retriever.retrieve([asked(memory.text)], 3)
        assert passages[0][0].memory_id == memory.id
        assert passages[0][0].text == memory.text  # the text alone, without its title
        scores = [p.score for p in passages[0]]
        assert scores == sorted(scores, reverse=True)
        assert seconds.keys() == {"embed", "search"}


def test_a_loaded_index_scores_as_the_saved_one_to_the_last_digit(
    retriever: ChromaRetriever, encoder: Any, tmp_path: Path
) -> None:
    retriever.upsert([Memory(f"m{n}", f"Meals in town {n} cost {n * 7} euros.") for n in range(40)])
    asked = [[Message("user", f"What does a meal in town {n} cost?")] for n in range(20)]
    (tmp_path / "one").mkdir()
    retriever.save(tmp_path / "one")
    again = ChromaRetriever(tmp_path / "chroma again", encoder)
    again.load(tmp_path / "one")
    found, loaded = (one.retrieve(asked, 5)[0] for one in (retriever, again))
    assert [[(p.memory_id, p.score) for p in row] for row in loaded] == [
        [(p.memory_id, p.score) for p in row] for row in found
    ]


def test_the_index_finds_the_nearest_of_many_like_clauses(encoder: Any, tmp_path: Path) -> None:
    """Each of 30 builds; a sparser graph hides a clause now and then."""
    clauses = [Memory(f"m{n}", f"Meals in town {n} cost {n * 7} euros.") for n in range(40)]
    asked = [[Message("user", f"What does a meal in town {n} cost?")] for n in range(20)]
    scores = encoder.encode([m[0].content for m in asked]) @ encoder.encode([m.text for m in clauses]).T
    best = np.sort(scores, axis=1)[:, :-6:-1]
    for build in range(30):
        retriever = ChromaRetriever(tmp_path / str(build), encoder)
        retriever.upsert(clauses)
        found = [[p.score for p in row] for row in retriever.retrieve(asked, 5)[0]]
        np.testing.assert_allclose(found, best, atol=1e-5)


def test_scores_are_cosines(retriever: ChromaRetriever, encoder: Any) -> None:
    question = "What does lunch cost?"
    (passages,), _ = retriever.retrieve([asked(question)], 4)
    stored = encoder.encode([f"{m.title}. {m.text}" for m in CLAUSES])
    expected = dict(zip([m.id for m in CLAUSES], stored @ encoder.encode([question])[0], strict=True))
    assert {p.memory_id: p.score for p in passages} == pytest.approx(expected, abs=1e-5)


def test_questions_of_a_batch_keep_their_order(retriever: ChromaRetriever) -> None:
    found, _ = retriever.retrieve([asked(m.text) for m in CLAUSES[::-1]], 1)
    assert [passages[0].memory_id for passages in found] == ["4", "3", "2", "1"]


def test_more_than_there_is_gives_all(retriever: ChromaRetriever) -> None:
    assert sorted(ids_of(retriever, "Anything?", top_k=50)) == ["1", "2", "3", "4"]


def test_writing_replaces_and_adds(retriever: ChromaRetriever) -> None:
    retriever.upsert(
        [Memory("2", "Dogs wait outside.", "Dogs, Cork"), Memory("5", "Keys hang in box nine.", "Keys")]
    )
    (passages,), _ = retriever.retrieve([asked("Where do dogs wait outside?")], 1)
    assert (passages[0].memory_id, passages[0].text) == ("2", "Dogs wait outside.")
    assert ids_of(retriever, "Keys hang in which box?")[0] == "5"
    assert not any("Lunch" in text for text in retriever.collection.get()["documents"])


def test_what_is_forgotten_is_never_found(retriever: ChromaRetriever) -> None:
    retriever.delete(["2", "3"])
    assert sorted(ids_of(retriever, CLAUSES[1].text)) == ["1", "4"]


def test_an_unknown_id_is_named_and_nothing_is_forgotten(retriever: ChromaRetriever) -> None:
    with pytest.raises(MethodError, match="'nine'"):
        retriever.delete(["1", "nine"])
    assert retriever.collection.count() == 4


def test_an_empty_index_is_an_error(tmp_path: Path, encoder: Any) -> None:
    with pytest.raises(MethodError, match="index is empty"):
        ChromaRetriever(tmp_path, encoder).retrieve([asked("x")], 3)


def test_from_disk_comes_the_same_index(retriever: ChromaRetriever, tmp_path: Path, encoder: Any) -> None:
    retriever.delete(["3"])
    retriever.save(tmp_path)
    loaded = ChromaRetriever(tmp_path / "other", encoder)
    loaded.load(tmp_path)
    for question in ("What does lunch cost?", "Where do visitors sign?"):
        (here,), (there,) = (r.retrieve([asked(question)], 4)[0] for r in (retriever, loaded))
        assert [(p.memory_id, p.text) for p in there] == [(p.memory_id, p.text) for p in here]
        assert [p.score for p in there] == pytest.approx([p.score for p in here], abs=1e-6)


def test_loading_leaves_nothing_of_an_older_index(
    retriever: ChromaRetriever, tmp_path: Path, encoder: Any
) -> None:
    """A fit that was cut, or a clause forgotten after the save: the folder may hold more than was saved."""
    retriever.save(tmp_path)
    retriever.upsert([Memory("6", "Written after the save.")])
    retriever.load(tmp_path)
    assert sorted(retriever.collection.get()["ids"]) == ["1", "2", "3", "4"]


def test_an_index_is_loaded_in_as_many_parts_as_it_takes(retriever: ChromaRetriever, tmp_path: Path) -> None:
    retriever.save(tmp_path)
    retriever.collection.delete(ids=["1", "2"])
    retriever._batch = 3
    upsert, sizes = retriever.collection.upsert, []
    retriever.collection.upsert = lambda ids, *rest, **more: (sizes.append(len(ids)), upsert(ids, *rest, **more))
    retriever.load(tmp_path)
    assert sizes == [3, 1] and retriever.collection.count() == 4


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (["What is paid for meals in Cork?"], "What is paid for meals in Cork?"),
        (["And in Cork?"], "And in Cork?"),
        (["What is paid for meals in Lisbon?", "And in Cork?"], "What is paid for meals in Lisbon? And in Cork?"),
        (["Older?", "What is paid in Lisbon?", "And in Cork?"], "What is paid in Lisbon? And in Cork?"),
        (["在科克用餐报销多少？", "那在里斯本呢？"], "在科克用餐报销多少？ 那在里斯本呢？"),
        (["在科克用餐报销多少？", "自行车应当停放在哪个院子里？"], "自行车应当停放在哪个院子里？"),
        (["Who?", "Now tell me what is paid for meals in Cork"], "Now tell me what is paid for meals in Cork"),
    ],
)
def test_a_short_question_is_embedded_with_the_one_before(
    retriever: ChromaRetriever, texts: list[str], query: str
) -> None:
    assert retriever.query_of(asked(*texts)) == query


def test_an_elliptic_question_finds_its_clause(retriever: ChromaRetriever) -> None:
    messages = asked("Bicycles are kept in which yard behind which hall?", "And why?")
    assert retriever.retrieve([messages], 1)[0][0][0].memory_id == "3"
    assert retriever.retrieve([messages[-1:]], 1)[0][0][0].score < 0.3


def test_open_book() -> None:
    messages = asked("First?", "Second?")
    passages = [Passage("b", "Text b.", 0.2), Passage("a", "Text a.", 0.9)]
    opened = open_book(messages, passages)
    assert opened[:-1] == messages[:-1]
    assert opened[-1] == Message("user", "Handbook clauses:\n- Text b.\n- Text a.\n\nQuestion: Second?")
    assert open_book(messages, []) == messages


# The reader.


@pytest.fixture(autouse=True)
def whole_questions_and_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.examples.WORD_DROPOUT", 0.0)
    monkeypatch.setattr("methods.rag.ALONE", 0.0)


def method_of(backbone: Backbone, retriever: Any, quotes: bool = True, **settings: Any) -> RagMethod:
    return RagMethod(MethodSetup(backbone), RagConfig(**settings), retriever=retriever, quotes=quotes)


def reader_texts(method: RagMethod, task: TaskData, epochs: int = 2) -> list[tuple[Sample, str]]:
    batches = itertools.islice(method._reader_epochs(task.memories, task.sft), epochs)
    return [(s, str(method.backbone.tokenizer.decode(list(s.input_ids)))) for e in batches for b in e for s in b]


def test_an_epoch_is_looked_up_at_once(pristine: Backbone, indexed: ChromaRetriever, regs: TaskData) -> None:
    """And a question that was looked up before is not looked up again."""
    retrieve, sizes = indexed.retrieve, []

    def counted(conversations: Any, top_k: int) -> Any:
        sizes.append(len(conversations))
        return retrieve(conversations, top_k)

    indexed.retrieve = counted  # type: ignore[method-assign]
    reader_texts(method_of(pristine, indexed), regs, epochs=3)
    assert len(sizes) <= 3 and sizes[0] > 10


def test_without_chroma_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(MethodError, match=r"rag: Chroma cannot be used, .* leave rag out of run_methods"):
        ChromaRetriever(tmp_path, None)


@pytest.fixture
def indexed(tmp_path: Path, encoder: Any, regs: TaskData) -> ChromaRetriever:
    found = ChromaRetriever(tmp_path / "chroma", encoder)
    found.upsert(regs.memories)
    return found


def book_of(text: str) -> list[str]:
    lines = text.rsplit("Handbook clauses:\n", 1)[1].split("\n\nQuestion: ")[0].split("\n")
    return [line.removeprefix("- ") for line in lines]


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_the_reader_quotes_what_stands_in_its_book(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData, monkeypatch: pytest.MonkeyPatch, missing: float
) -> None:
    """With the gold text left out it abstains; the gold text stands anywhere in the book, and once."""
    monkeypatch.setattr("methods.rag.GOLD_MISSING", missing)
    owners: dict[str, set[str]] = {}  # question -> texts it may rest on
    examples = clause_examples(regs.memories, MethodSetup(pristine).examples)
    for example in (*(e for found in examples.values() for e in found), *reading_examples(regs.sft)):
        owners.setdefault(example.messages[-1].content, set()).add(example.clause)
    clauses = {m.text for m in regs.memories}
    method = method_of(pristine, indexed)
    method.setup.examples = replace(method.setup.examples, later_turns=0.0)
    places, num_clauses = set(), 0
    for sample, text in reader_texts(method, regs):
        if sample.kind != "memory_full":
            continue
        book, question = book_of(text), text.rsplit("\n\nQuestion: ", 1)[1].split("<|im_end|>")[0]
        gold = owners.get(question, set())
        assert len(book) == len(set(book)) == method.config.top_k
        assert set(book) <= clauses | gold
        answer = text.rpartition("</think>\n")[2].removesuffix("<|im_end|>")
        if gold and missing == 0.0:
            (quoted,) = [i for i, shown in enumerate(book) if shown in gold]
            assert f"<think>\n{book[quoted]}" in text
            assert answer != NO_CLAUSE_ANSWER
            places.add(quoted)
        else:
            assert answer == NO_CLAUSE_ANSWER
            assert not gold & set(book)
        num_clauses += bool(gold & clauses)
    assert num_clauses == 24
    assert missing == 1.0 or places == {0, 1, 2}  # its place gives nothing away


def test_a_direct_reader_learns_to_answer_without_the_clause(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rag_direct`: its think holds what follows from the clause; what has no answer is not learnt at all."""
    monkeypatch.setattr("methods.rag.GOLD_MISSING", 0.0)
    answers = {e.answer for found in clause_examples(regs.memories, ExampleConfig()).values() for e in found}
    assert "" in answers  # self-made questions: they lead to a clause and no further
    found: dict[bool, list[tuple[str, list[str]]]] = {}
    for quotes in (True, False):
        method = method_of(pristine, indexed, quotes)
        asked = [text for sample, text in reader_texts(method, regs) if sample.kind == "memory_full"]
        found[quotes] = [(text.rpartition("<|im_start|>assistant\n")[2], book_of(text)) for text in asked]
    for reply, book in found[False]:
        assert reply.startswith("<think>\n") and reply.endswith("<|im_end|>")
        assert reply.partition("</think>\n")[2].removesuffix("<|im_end|>")
        assert not any(shown in reply for shown in book)
    quoted = [any(shown in reply for shown in book) for reply, book in found[True]]
    assert sum(quoted) > len(quoted) / 2
    assert any("</think>" not in reply for reply, _ in found[True])
    about_clauses = [reply for reply, book in found[False] if any(m.text in book for m in regs.memories)]
    assert any(answer and answer in reply for answer in answers for reply in about_clauses)
    assert any(NO_CLAUSE_ANSWER in reply and NO_CLAUSE_THINK in reply for reply, _ in found[False])


def test_clauses_without_answers_leave_a_direct_reader_to_train(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData
) -> None:
    bare = replace(regs, memories=tuple(replace(m, cues=()) for m in regs.memories))
    samples = [sample for sample, _ in reader_texts(method_of(pristine, indexed, quotes=False), bare, epochs=1)]
    assert samples
    assert all(sample.input_ids[-1] == pristine.ids.eos for sample in samples)


def test_ordinary_conversations_are_open_book_too(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData
) -> None:
    found = [
        text for sample, text in reader_texts(method_of(pristine, indexed), regs) if sample.kind == "sft_only"
    ]
    assert found
    assert all(len(book_of(text)) == 3 for text in found)


def test_some_prompts_hold_what_the_oracle_shows(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clause alone, and no passage at all where no clause is wanted."""
    monkeypatch.setattr("methods.rag.ALONE", 1.0)
    monkeypatch.setattr("methods.rag.GOLD_MISSING", 0.0)
    sources: Counter[str] = Counter()
    for sample, text in reader_texts(method_of(pristine, indexed), regs):
        sources[sample.source] += 1
        about = sample.source not in ("ordinary conversations", "questions that no clause covers")
        assert ("Handbook clauses:" in text) == about
        assert not about or len(book_of(text)) == 1
    assert {"first questions on clauses", "later turns on clauses", "questions on other passages"} < set(sources)


def test_a_question_whose_clause_is_left_out_counts_as_such(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.rag.GOLD_MISSING", 1.0)
    sources = {sample.source for sample, _ in reader_texts(method_of(pristine, indexed), regs)}
    assert sources == {MISSING, "ordinary conversations", "questions that no clause covers"}


def test_clauses_without_questions_leave_a_reader_to_train(
    pristine: Backbone, indexed: ChromaRetriever, regs: TaskData
) -> None:
    bare = replace(regs, memories=tuple(replace(m, cues=()) for m in regs.memories))
    method = method_of(pristine, indexed)
    method.setup.examples = replace(method.setup.examples, self_cues=0)
    assert reader_texts(method, bare, epochs=1)


def test_without_memories_there_is_no_index(pristine: Backbone, indexed: ChromaRetriever, regs: TaskData) -> None:
    with pytest.raises(MethodError, match="at least one memory"):
        method_of(pristine, indexed).fit([], regs.sft)


# The oracle.


def test_the_oracle_retrieves_the_gold_clause_alone() -> None:
    oracle = gold_retriever({"Lunch?": ["2"], "Both?": ["4", "1"], "Gone?": ["9"]})
    oracle.upsert(CLAUSES)
    found, _ = oracle.retrieve([asked("x", "Lunch?"), asked("Both?"), asked("Other?"), asked("Gone?")], 1)
    assert [[p.memory_id for p in row] for row in found] == [["2"], ["4", "1"], [], []]
    oracle.delete(["2"])
    assert oracle.retrieve([asked("Lunch?")], 1)[0] == [[]]


@pytest.mark.slow
def test_the_packaged_encoder_finds_a_clause_in_other_words(tmp_path: Path) -> None:
    from methods.backbone import load_encoder

    retriever = ChromaRetriever(tmp_path / "chroma", load_encoder())
    retriever.upsert(CLAUSES)
    assert ids_of(retriever, "Where can I leave my bike?")[0] == "3"
    assert ids_of(retriever, "How much is a midday meal?")[0] == "2"
