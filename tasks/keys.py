"""Is an answer right? What a question's key accepts: the one definition of *correct* (DESIGN section 3).

An answer is right where it asserts the key or an alias, compared as values, and no other value that could be the
answer: none of a near-miss clause (a rival), none of another fact of the key's own clause, no second candidate.
What counts is what a clause of the answer asserts: "31 euros is wrong; it is 40 euros" asserts 40 euros alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from tasks.abstention import is_abstention, plainly_abstains
from tasks.assertion import answer_says, denied, key_says
from tasks.base import QA, Memory, TaskData
from tasks.labels import EMPTY, Form, bears, contradicted, forms, labelled_in, parted, stated
from tasks.spelling import words
from tasks.values import (
    FIGURES,
    PERIODS,
    Item,
    bounded_forms,
    in_longer_names,
    matches,
    normalise,
    read,
    same,
    stands_in,
)

Span = tuple[int, int]  # [start, end) among the items of the answer


class ScoringError(ValueError):
    """A question whose key cannot be scored: names the question and the fix."""


_CONDITIONS = frozenset(words("if when whenever once unless where for provided 如 若 当"))
_NO_ALTERNATIVE = frozenset(
    words("you it they we he she i else so not if your otherwise there any other similar equivalent more less")
)
_BESIDE_A_TIME = {"before": ("by", "until", "earlier than"), "after": ("from", "later than")}
_OR, _AND = ("or", "或"), ("and", "和", "与", "及")
_PLACES = frozenset(
    words("section clause chapter page article paragraph part rule number passage document line point item 第")
)


class _Sides(NamedTuple):
    """What an answer asserts, seen from a question's key."""

    key: list[Span]
    rivals: tuple[str, ...]
    own: tuple[str, ...]  # other facts of the key's own clause


def check_key(qa: QA) -> None:
    """Raises ScoringError where the question has no key that an answer can be compared with."""
    if (qa.kind == "unanswerable") != (not qa.memory_ids):
        raise ScoringError(
            f"question {qa.id!r} has kind {qa.kind!r} and memory_ids {qa.memory_ids!r}: exactly the "
            "unanswerable questions rest on no clause"
        )
    if qa.memory_ids and not read(qa.answer):
        raise ScoringError(f"question {qa.id!r}: nothing is left of its key {qa.answer!r} to compare with")


@lru_cache(maxsize=16384)
def _forms(answer: str, aliases: tuple[str, ...], question: str) -> tuple[Form, ...]:
    """The key's forms; what an alias leaves open is settled by the answer ("half past six" for 18:30)."""
    (first, *others), *more = (forms(form, question) for form in (answer, *aliases))
    settled = [first, *others]
    for form in (form for several in more for form in several):
        items, main = form.items, first.items
        if (
            len(items) == len(main) == 1
            and len(items[0].readings) > 1
            and main[0].readings[0] in items[0].readings
        ):
            form = form._replace(items=(items[0]._replace(readings=main[0].readings[:1]),))
        settled.append(form)
    parts = re.split(r", (?:and )?| and |和|、", stated(answer, question))
    if 1 < len(parts) < 5 and all(map(read, parts)):  # a list, in any order
        for order in permutations(parts):
            listed = (f"{', '.join(order[:-1])} and {order[-1]}", ", ".join(order))
            settled += (first._replace(items=read(text)) for text in listed)
    settled += [form._replace(items=other) for form in settled for other in _often(form.items)]
    settled += [form._replace(items=other) for form in settled for other in _at_a_time(form.items)]
    return (*settled, *(form._replace(items=read(h), bare=True) for form in settled for h in _hours(form.items)))


def _often(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Other ways to say how often: once a year is every year; every minute, every 60 seconds."""
    said = [item.text for item in items]
    if said[:2] == ["1 time", "per"]:
        yield tuple(items[1:])
    if len(said) == 2 and said[0] == "per" and said[1] in PERIODS:
        yield read(f"every 1 {said[1]}")
    if len(said) == 2 and said[0] == "every":
        yield from (read(f"per {period}") for period in PERIODS if same(read(f"1 {period}")[0], items[1]))


def _at_a_time(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Other ways to say before or after a time of day."""
    if len(items) == 2 and items[1].kind == "time" and items[0].text in _BESIDE_A_TIME:
        yield from (read(f"{said} {items[1].text}") for said in _BESIDE_A_TIME[items[0].text])


def _hours(items: Sequence[Item]) -> Iterator[str]:
    """Opening hours as people say them: 9:00 to 17:00 is "9 to 5"."""
    if len(items) == 1 and items[0].kind == "range" and re.fullmatch(r"\d\d:00 to \d\d:00", items[0].text):
        first, last = (int(hour) for hour in re.findall(r"\d\d(?=:)", items[0].text))
        yield f"{first % 12 or 12} to {last % 12 or 12}"


def _counted(form: Sequence[Item], question: str) -> list[tuple[Item, ...]]:
    """The bare number, where the question has its unit: "How many days?" "27"."""
    asked = re.search(r"\bhow many (\w+)", question.lower())
    if not asked or not form or form[0].kind not in ("number", "quantity"):
        return []
    same_unit = read(f"2 {asked[1]}")[-1].text.split()[-1] == form[-1].text.split()[-1]
    return [read(form[0].amount)] if same_unit else []


def _sides(final: str, qa: QA) -> _Sides:
    items, keys = read(final), _forms(qa.answer, qa.aliases, qa.question)
    if [item.kind for item in items if item.text not in EMPTY] == ["number"]:
        keys = (*keys, *map(Form, _counted(keys[0].items, qa.question)))
    any_unit = len(keys[0].items) == 1
    others = (*qa.rivals, *qa.beside)
    found = [
        (span, denied(items, *span))
        for form in keys
        for span in matches(form.items, items, True, any_unit and not form.bare)
        if bears(form, items, span, qa.question, others)
    ]
    refused = [span for span, no in found if no]
    spans = [span for span, no in found if not no and not any(s <= span[0] and span[1] <= e for s, e in refused)]
    if contradicted(keys[0], items, spans) or all(
        in_longer_names(form, final) for form in (qa.answer, *qa.aliases)
    ):
        spans = []

    def held(values: Iterable[str]) -> tuple[str, ...]:
        return tuple(
            value
            for value in values
            if not in_longer_names(value, final)
            and any(
                not denied(items, start, end) and not any(s <= start and end <= e for s, e in spans)
                for form in forms(value, qa.question)
                for start, end in matches(form.items, items, False, any_unit)
                if bears(form, items, (start, end), qa.question, ())
            )
        )

    return _Sides(spans, held(qa.rivals), held(qa.beside))


def held_values(final: str, qa: QA) -> tuple[bool, tuple[str, ...]]:
    """Does the answer assert the key (or an alias), and which rivals does it assert?

    A rival that lies wholly inside a span matched by the key or an alias is part of that span and does
    not count: with the key "10 working days" the rival "10" is no contradiction. What the answer denies or puts
    into the user's mouth counts on neither side, so that setting a user's wrong claim right is no mistake.
    """
    side = key_says(stated(qa.answer, qa.question))
    if side is not None:
        said, items = answer_says(final, qa.question), read(final)
        if said is not None:
            return said == side, ()
        others = [read(form) for form in (qa.answer, *qa.aliases) if key_says(form) is None]
        return any(not denied(items, *span) for other in others for span in matches(other, items)), ()
    sides = _sides(final, qa)
    return bool(sides.key), sides.rivals


def abstains(final: str, qa: QA) -> bool:
    """`is_abstention`, with the key in view.

    In an answer that asserts the key, words that also state facts do not count ("No, the policy does not
    cover contractors" to the key "no"); only plain ones do ("I don't know, perhaps 40 euros"), and not even
    those where the key itself reads like them.
    """
    if not (qa.memory_ids and held_values(final, qa)[0]):
        return is_abstention(final)
    if any(is_abstention(value) for value in (qa.answer, *qa.aliases)):
        return False
    return plainly_abstains(final)


def asserts_key(final: str, qa: QA) -> bool:
    """The looser figure beside *correct*: the key asserted, no rival, no abstention; other values are tolerated.

    Unanswerable: abstains and names no rival. Raises ScoringError where the question has no usable key.
    """
    check_key(qa)
    if not final.strip():
        return False
    holds_key, rivals = held_values(final, qa)
    if rivals or holds_key != bool(qa.memory_ids):
        return False
    return abstains(final, qa) != holds_key


def is_correct(final: str, qa: QA) -> bool:
    """*Correct*, the one definition of every accuracy here (DESIGN section 3).

    final: the text after `</think>`, "" where the think never closed (which is wrong). Answerable: asserts the key
    or an alias and does not abstain, and asserts no rival, no other fact of the key's clause and no second value
    of the key's kind. Values that stand in the question, in a condition ("if", "for a stay of", "longer than a
    week") or before "=" are no candidates. Unanswerable: abstains, and gives no figure beside.
    Raises ScoringError where the question has no usable key.
    """
    if not asserts_key(final, qa):
        return False
    items = read(final)
    question = read(qa.question)
    if not qa.memory_ids:
        return not any(_invented(items, n, question) for n in range(len(items)))
    if key_says(stated(qa.answer, qa.question)) is not None:
        return True
    if [item.text for item in items] == [item.text for item in question]:
        return False
    sides = _sides(final, qa)
    # The working of a question on two clauses may name the two facts that it compares.
    allowed = 2 if qa.kind == "two_clause" else 0
    own = {normalise(value) for value in sides.own if not matches(read(value), question, bounds=False)}
    return len(own) <= allowed and not _second_candidate(items, sides.key, qa, question)


def _second_candidate(items: Sequence[Item], spans: Sequence[Span], qa: QA, question: Sequence[Item]) -> bool:
    inside = {n for start, end in spans for n in range(start, end)}
    if any(_alternative(items, span, inside) for span in spans):
        return True
    if qa.kind == "two_clause":
        return False
    keys = _forms(qa.answer, qa.aliases, qa.question)
    values = [item for form in keys for item in form.items if item.kind in FIGURES]
    for n, item in enumerate(items):
        if n in inside or item.kind not in FIGURES or _incidental(items, n, question):
            continue
        if any(same(value, item, bounds=False) for value in values):
            continue
        if any(_comparable(items, place, n) for start, end in spans for place in range(start, end)):
            return True
    return False


def _comparable(items: Sequence[Item], place: int, n: int) -> bool:
    """Are two values of the answer of one kind, so that both could be what was asked for?"""
    value, other = items[place], items[n]
    if value.kind == other.kind == "number":  # what is counted, or what bears the number

        def word(k: int) -> str:
            return items[k].text if 0 <= k < len(items) and items[k].kind == "word" else ""

        counted, bearer = word(place + 1), word(place - 1)
        return (counted == word(n + 1) and counted not in ("", "of", "per")) or (
            bearer == word(n - 1) and len(bearer) > 3
        )
    if value.kind == other.kind == "code":
        return _letters(value) == _letters(other)
    if value.kind in ("number", "code", "word"):
        return False
    if "range" in (value.kind, other.kind):
        return value.unit == other.unit != ""
    return (value.kind, value.unit) == (other.kind, other.unit)


def _letters(item: Item) -> str:
    return re.sub(r"\d", "", item.text)


def _alternative(items: Sequence[Item], span: Span, inside: set[int]) -> bool:
    """Does another value or name stand beside the span, joined by "or"; or another number in a list with it?"""
    start, end = span
    for link, beyond in ((end, end + 1), (start - 1, start - 2)):
        if not (0 <= link < len(items) and 0 <= beyond < len(items)) or beyond in inside:
            continue
        if items[link].text in _OR and items[beyond].text not in _NO_ALTERNATIVE:
            return True
    for edge, step in ((end - 1, 1), (start, -1)):  # "K32, K17" and "docks 7 and 12"
        beyond = edge + step
        listed = 0 <= beyond < len(items) and items[max(edge, beyond)].mark == ","
        if 0 <= beyond < len(items) and items[beyond].text in _AND:
            listed, beyond = True, beyond + step
        if not listed or not 0 <= beyond < len(items) or beyond in inside:
            continue
        closed = beyond + 1 == len(items) or items[beyond + 1].mark or items[beyond + 1].text in (*_OR, *_AND)
        if closed and items[beyond].kind == items[edge].kind and items[edge].kind in ("number", "code"):
            return True
    return False


def _incidental(items: Sequence[Item], n: int, question: Sequence[Item]) -> bool:
    """Is a value denied, or a condition, a rate, an operand, or the question's own?"""
    item = items[n]
    if item.bound in ("<", ">") or denied(items, n, n + 1):
        return True
    if any(same(asked, item, bounds=False) for asked in question if asked.kind == item.kind):
        return True
    first = next(k for k in range(n, -1, -1) if k == 0 or items[k - 1].clause != item.clause)
    if items[first].text in _CONDITIONS or (n and items[n - 1].text == "per"):
        return True
    return any(other.text == "=" and other.clause == item.clause for other in items[n + 1 :])


def _invented(items: Sequence[Item], n: int, question: Sequence[Item]) -> bool:
    """Is it a figure that the answer asserts and the question did not bring?"""
    item = items[n]
    if item.kind not in FIGURES or item.text in ("1", "2", "1 time", "2 time"):
        return False
    if item.bound not in ("<", ">") and _incidental(items, n, question):
        return False
    return not (n and items[n - 1].text in _PLACES)


def key_problems(qa: QA) -> list[str]:
    """What is wrong with the key as the scorer reads it, a sentence each: how it is compared, and the fix."""
    if (qa.kind == "unanswerable") != (not qa.memory_ids):
        return [
            f"question {qa.id}: has kind {qa.kind!r} and memory_ids {list(qa.memory_ids)}, and exactly the "
            "unanswerable questions rest on no clause; correct one of the two"
        ]
    if not qa.memory_ids:
        return []
    found = []
    if not read(qa.answer):
        return [f"question {qa.id}: nothing is left of {qa.answer!r} to compare with; write a word or a value"]
    for form in (qa.answer, *qa.aliases):
        how = f"question {qa.id}: {form!r} is compared as {_described(stated(form, qa.question))}"
        if not read(form):
            found.append(f"question {qa.id}: nothing is left of {form!r} to compare with; write a word or a value")
        elif plainly_abstains(form):
            found.append(f"{how} and reads like an abstention; give a key that states something")
        elif not is_correct(form, qa):
            found.append(f"{how} and is not right as its own answer; name one value, and no rival that it holds")
        elif _another(read(stated(qa.answer, qa.question)), read(stated(form, qa.question))):
            found.append(f"{how}, another value than its answer {qa.answer!r}; correct one of the two")
    found += [
        f"question {qa.id}: its rival {rival!r} is compared as {_described(rival)} and would be right; "
        "take it out or change the key"
        for rival in qa.rivals
        if is_correct(rival, qa)
    ]
    return found


def _another(answer: Sequence[Item], alias: Sequence[Item]) -> bool:
    """Are the two one value each, of one kind, and not the same? Clocks may differ by half a day."""
    if len(answer) != 1 or len(alias) != 1 or answer[0].kind not in ("quantity", "number", "date", "time"):
        return False
    one, two = answer[0], alias[0]
    if one.kind == two.kind == "time":
        return bool((one.readings[0] - two.readings[0]) % 720)
    return (one.kind, one.unit) == (two.kind, two.unit) and not same(one, two, bounds=False)


def with_own_clause(qa: QA, text: str, others: Iterable[Sequence[str]]) -> QA:
    """The question with what its clause adds to the key: the bound that the clause gives, and its other facts.

    text: the clause; others: (answer, *aliases) of its other facts. Where the key is a label and its value, what
    the clause says under other labels ("Maximum: 500") is another fact too.
    """
    own = (qa.answer, *qa.aliases)
    bounded = dict.fromkeys(form for value in own for form in bounded_forms(stated(value, qa.question), text))
    beside = dict.fromkeys(form for other in others for form in other)
    if parted(qa.answer):
        told = (said for said in labelled_in(text) if not any(stands_in(value, said) for value in own))
        beside |= dict.fromkeys(told)
    return replace(
        qa,
        aliases=(*qa.aliases, *(form for form in bounded if form not in own)),
        beside=tuple(form for form in beside if not any(stands_in(form, value) for value in own)),
    )


def with_own_clauses(task: TaskData) -> TaskData:
    """The task with `with_own_clause` for each held-out question that a clause answers."""
    facts: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for place, stated_as in task.facts.items():
        memory_id, _, slot = place.rpartition("/")
        facts[memory_id][slot] = stated_as
    revised = {memory_id: dict(slots) for memory_id, slots in facts.items()}
    for qa in task.revised_questions:
        revised.setdefault(qa.memory_ids[0], {})[qa.slot] = (qa.answer, *qa.aliases)

    def complete(qa: QA, memories: Mapping[str, Memory], slots: Mapping[str, Mapping[str, tuple[str, ...]]]) -> QA:
        ids = [memory_id for memory_id in qa.memory_ids if memory_id in memories]
        others = [f for memory_id in ids for slot, f in slots.get(memory_id, {}).items() if slot != qa.slot]
        text = memories[ids[0]].text if len(ids) == 1 else ""
        return with_own_clause(qa, text, others) if ids else qa

    old, new = ({memory.id: memory for memory in part} for part in (task.memories, task.revisions))
    return replace(
        task,
        questions=tuple(complete(qa, old, facts) for qa in task.questions),
        revised_questions=tuple(complete(qa, new, revised) for qa in task.revised_questions),
    )


def _described(form: str) -> str:
    return ", ".join(f"{item.kind} {item.bound + item.text!r}" for item in read(form)) or "nothing"
