"""Whether a task can be trusted to measure what it says: one check for any TaskData.

The loaders see to the form of the data; this sees to its sense. A leak of a test question into
training, a key that its clause does not give, or a question that no answer can satisfy would bend
every number that follows: these are problems. What only leaves a part of the tables empty is a remark.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from tasks.assertion import key_says
from tasks.base import QA, Memory, TaskData, TaskError
from tasks.chinese import split_characters, topics
from tasks.keys import held_values, key_problems
from tasks.labels import gives_away
from tasks.similarity import candidate_pairs
from tasks.values import stands_in

NEAR_JACCARD = 0.8  # two questions are nearly equal from this share of common words on ...
NEAR_RATIO = 0.8  # ... or from this difflib ratio of their word sequences
LEAST_IN_COMMON = 0.5  # which needs at least this share of common words
COVERED_OVERLAP = 0.6  # a clause seems to cover a question if it holds this share of its content words
MIN_CONTENT_WORDS = 3  # a shorter question says too little for the overlap to mean anything


@cache
def words(text: str) -> tuple[str, ...]:
    """Lower-case words and numbers, punctuation dropped; a Chinese character is a word."""
    return tuple(re.findall(r"[^\W_]+", split_characters(text.lower())))


STOP_WORDS = frozenset(
    words(
        """
        a about after all also am an and any are as at be been before by can colleague company could day
        days did do does doing each employee employees every for from get give gives go goes got had
        handbook has have he her his how i if in into is it its just keep kept long many may
        me month much must my need needs no not of off on one or our out over own pay people per person rule
        rules say says shall she should so some staff still take takes than that the their them
        then there these they this time to two under up us use used want wants was we week were what when
        where which who whom whose why will with work worker works would year you your
        """
    )
)


@cache
def _word_set(text: str) -> frozenset[str]:
    return frozenset(words(text))


def nearly_equal(one: str, two: str) -> bool:
    """Whether two questions are the same up to a few words (NEAR_JACCARD, NEAR_RATIO)."""
    a, b = words(one), words(two)
    common, union = len(_word_set(one) & _word_set(two)), len(_word_set(one) | _word_set(two))
    jaccard = common / union if union else 1.0
    if jaccard >= NEAR_JACCARD:
        return True
    # A ratio of 0.8 needs two thirds of the words in common; the slow matcher runs only near that.
    if jaccard < LEAST_IN_COMMON:
        return False
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= NEAR_RATIO


@cache
def content_words(text: str) -> frozenset[str]:
    """Words that carry the topic, without common endings, so that "gloves" meets "glove"."""
    kept = (word for word in words(text) if len(word) > 2 and word not in STOP_WORDS)
    return frozenset(re.sub(r"(ing|ed|es|s|e)$", "", word) for word in kept) | topics(text)


def coverage(question: str, memory: Memory) -> float:
    """Share of the question's content words that stand in the clause; 0 for a question with too few."""
    asked = content_words(question)
    if len(asked) < MIN_CONTENT_WORDS:
        return 0.0
    return len(asked & content_words(f"{memory.title} {memory.text}")) / len(asked)


def _repeated(ids: Iterable[str], what: str) -> Iterator[str]:
    for name, count in Counter(ids).items():
        if count > 1:
            yield f"{what} id {name!r} is used {count} times; give each its own"


def _ids(task: TaskData) -> Iterator[str]:
    cues = [cue.id for memory in task.memories for cue in memory.cues]
    questions = [qa.id for qa in (*task.questions, *task.revised_questions)]
    yield from _repeated([memory.id for memory in task.memories], "clause")
    yield from _repeated([*cues, *questions], "question")
    yield from _repeated([c.id for c in (*task.sft, *task.sft_heldout)], "conversation")
    known = {memory.id for memory in task.memories}
    for qa in (*task.questions, *task.revised_questions):
        for memory_id in qa.memory_ids:
            if memory_id not in known:
                yield f"question {qa.id}: there is no clause {memory_id!r}; correct its memory_ids"
    for memory in task.revisions:
        if memory.id not in known:
            yield f"revision {memory.id}: there is no such clause; correct its id"


def gives(text: str, qa: QA) -> bool:
    """Does a text give a question's key: as a value, as a list in another order, or by saying yes or no?"""
    plain = key_says(qa.answer) is None and any(stands_in(form, text) for form in (qa.answer, *qa.aliases))
    return plain or held_values(text, qa)[0]


def _key(qa: QA, text: str) -> Iterator[str]:
    """The key against the clause's text: quoting the clause must be a right answer, but for yes or no."""
    if key_says(qa.answer) is None and not gives(text, qa):
        yield f"question {qa.id}: its answer {qa.answer!r} does not stand in the clause; mend one of the two"
    for rival in qa.rivals:
        if stands_in(rival, text):
            yield f"question {qa.id}: the rival {rival!r} stands in its own clause; change one of the values"
    for form in (qa.answer, *qa.aliases, *qa.rivals):
        if gives_away(qa.question, form):
            yield f"question {qa.id}: it holds the value {form!r} in its own words; ask without it"


def _keys(task: TaskData) -> Iterator[str]:
    old = {memory.id: memory.text for memory in task.memories}
    new = {memory.id: memory.text for memory in task.revisions}
    for memory in task.memories:
        for cue in memory.cues:
            yield from _key(cue, memory.text)
    for qa in (*task.questions, *task.revised_questions):
        yield from key_problems(qa)
    for qa in task.questions:
        if qa.kind == "single" and qa.memory_ids and qa.memory_ids[0] in old:
            yield from _key(qa, old[qa.memory_ids[0]])
    for qa in task.revised_questions:
        if qa.memory_ids[0] in new:
            yield from _key(qa, new[qa.memory_ids[0]])
    for memory_id in new:
        if not any(qa.memory_ids == (memory_id,) for qa in task.revised_questions):
            yield f"revision {memory_id}: no question has a new key; change a value that is asked for"


def _leaks(task: TaskData) -> Iterator[str]:
    """Held-out questions that training has seen, and dev questions that test asks again."""
    trained = [(cue.id, cue.question) for memory in task.memories for cue in memory.cues]
    trained += [(c.id, c.messages[0].content) for c in task.sft]
    asked = [*trained, *((qa.id, qa.question) for qa in task.questions)]
    for i, j in candidate_pairs([_word_set(question) for _, question in asked], LEAST_IN_COMMON):
        if j < len(trained) or not nearly_equal(asked[i][1], asked[j][1]):
            continue
        two = task.questions[j - len(trained)]
        if i < len(trained):
            yield f"question {two.id} is nearly the training question {asked[i][0]}; word it differently"
            continue
        one = task.questions[i - len(trained)]
        # Within a split, siblings may be asked for in the same words; a clause may not be asked twice.
        if one.split != two.split or one.memory_ids == two.memory_ids:
            yield f"questions {one.id} and {two.id} are nearly the same; word one differently"
    for question, count in Counter(" ".join(words(question)) for _, question in asked).items():
        if count > 1:
            yield f"the question {question!r} stands {count} times; word each differently"
    seen = {" ".join(words(c.messages[0].content)) for c in task.sft}
    for conversation in task.sft_heldout:
        if " ".join(words(conversation.messages[0].content)) in seen:
            yield f"held-out conversation {conversation.id} is trained on; drop it from one of the parts"


def _unanswerable(task: TaskData) -> Iterator[str]:
    asked = [(qa.id, qa.question) for qa in task.questions if qa.kind == "unanswerable"]
    asked += [(c.id, c.messages[0].content) for c in task.sft if c.kind == "unanswerable"]
    topics_of = [(question_id, question, content_words(question)) for question_id, question in asked]
    for memory in task.memories:
        held = content_words(f"{memory.title} {memory.text}")
        for question_id, question, topic in topics_of:
            if not topic.isdisjoint(held) and coverage(question, memory) >= COVERED_OVERLAP:
                yield f"unanswerable {question_id}: clause {memory.id} seems to cover it; ask something else"


def odd_characters(text: str) -> str:
    """What no clean text holds, each once: control characters, lone surrogates, the mark of a failed decoding."""
    odd = (c for c in text if c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cs", "Co") and c != "\n"))
    return "".join(dict.fromkeys(odd))


def _texts(task: TaskData) -> Iterator[str]:
    """Every text that a method sees is there and was read in the right encoding."""
    for memory in (*task.memories, *task.revisions):
        yield from _text(f"clause {memory.id}", memory.text)
        if memory.title:
            yield from _text(f"clause {memory.id}: its title", memory.title)
    cues = (cue for memory in task.memories for cue in memory.cues)
    for qa in (*cues, *task.questions, *task.revised_questions):
        for part in (qa.question, *((qa.answer,) if qa.answer else ()), *qa.aliases):
            yield from _text(f"question {qa.id}", part)


def _text(place: str, text: str) -> Iterator[str]:
    if not text.strip():
        yield f"{place} has no text; write it"
    odd = odd_characters(text)
    if odd:
        yield f"{place} holds {odd[0]!r}, which a wrong encoding leaves behind; save its file as UTF-8"


def _record(task: TaskData) -> Iterator[str]:
    """What a run writes down about its data."""
    for name in ("licence", "source", "version"):
        if not getattr(task, name).strip():
            yield f"its {name} is not recorded; set it"
    if not task.memories:
        yield "it has no clause; add one"
    if not any(True for _ in task.held_out("test")):
        yield "it has no test question on a single clause; write one"
    for qa in task.questions:
        if qa.split == "train":
            yield f"question {qa.id} is held out and marked 'train'; make it a cue, or dev or test"


def remarks(task: TaskData) -> list[str]:
    """What leaves a part of the tables empty without making any figure wrong, one sentence each."""
    found = []
    if not any(memory.cued for memory in task.memories):
        found.append("no clause has cues; give training questions to some, or the cued split stays empty")
    elif all(memory.cued for memory in task.memories):
        found.append("every clause has cues; leave some without, or the uncued split stays empty")
    if not any(True for _ in task.held_out("dev")):
        found.append("it has no dev question; write one, or nothing can be tuned on it")
    tested = {qa.memory_ids for qa in task.held_out("test")}
    found += [
        f"clause {memory.id}: it has no test question; write one"
        for memory in task.memories
        if (memory.id,) not in tested
    ]
    return found


PARTS = (_ids, _texts, _keys, _leaks, _unanswerable, _record)


def problems(task: TaskData) -> list[str]:
    """Every problem found, each as one sentence that names the thing and the fix; [] for a sound task."""
    return [problem for part in PARTS for problem in part(task)]


def first_of_all(found: Sequence[str]) -> str:
    """The first problem, and how many there are if it is not the only one."""
    return found[0] if len(found) == 1 else f"{found[0]} ({len(found)} problems in all)"


def check(task: TaskData) -> None:
    """Raises TaskError with the first problem and the count, if there is any."""
    found = problems(task)
    if found:
        raise TaskError(f"task {task.name}: {first_of_all(found)}")
