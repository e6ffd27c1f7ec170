"""Handbooks of places that do not exist, of any size, by seed: for scaling curves and clean checks.

Clause i is made from (seed, i) alone, so a stream of any length takes constant memory. Three clauses in a
row are one near-miss family: the same rule of the same place for three groups, one of them without cues.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tasks.base import (
    NO_CLAUSE_ANSWER,
    NO_CLAUSE_THINK,
    QA,
    Conversation,
    Memory,
    Message,
    Split,
    TaskData,
    TaskError,
    assistant_content,
)
from tasks.think_sft import sft_corpus

DATA = Path(__file__).parent / "data" / "synthetic"
MIN_CLAUSES, MAX_CLAUSES = 3, 100_000
DEFAULT_CLAUSES = 300
FAMILY = 3  # clauses of a near-miss family
REVISED_EVERY = 5  # one asked family in so many has a revised clause


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# 36 x 30 x 36 place names, all different.
_FIRST = _words(
    "Al Bar Cor Dal El Fen Gar Hol Im Jor Kel Lor Mar Nor Or Pel Quin Ros Sel Tor Ul Ver Wes Yar Zel Bren Cas "
    "Drum Fal Gril Hex Jas Kip Lund Mos Nim"
)
_MIDDLE = _words(
    "a e i o u ami ebi ido oku ura ani epo iva ola une asso eddi iffo ommu urri abe eco iga oke uma ave eno isu "
    "ota ude"
)
_LAST = _words(
    "ban bek cott dale dorn fell ford garth grove ham hurst keld kirk lach lock mere minster mond moor nass nock "
    "pool quay rick ros sand shaw stead stow thorpe vane vik wade well wick worth"
)
_NAMES = len(_FIRST) * len(_MIDDLE) * len(_LAST)

_GIVEN = _words("Ada Ben Cleo Dov Edda Finn Greta Hugo Ines Jan Kira Leo Mina Nils Olga Per Rosa Sven Tilda Vito")
_SURNAMES = tuple(
    first + last
    for first in _words("Abra Bolo Cera Dimi Ero Fuli Gono Hari Iva Jelo Karu Lemi Mavo Nori Oste Pira Rudo Sami")
    for last in _words("dsen nova rini tescu kov lund mann berg vitz sson pulos quist")
)

_TAILS = (
    "",
    "The rule is read out once a season.",
    "Exceptions need the consent of the board.",
    "A copy hangs by the main door.",
    "Whoever breaks it gets a written reminder.",
    "It replaces what was agreed by word of mouth.",
    "Complaints go to the council in writing.",
    "Public holidays change nothing about it.",
    "The text was drawn up by a committee of neighbours.",
)
_WHICH_IS_HIGHER: dict[Split, str] = {
    "test": "Of {a} and {b} at {p}, which has the higher {noun}?",
    "dev": "Compare {p}'s {noun} between {a} on one side and {b} on the other: whose is bigger?",
}
_NAMED = ("person", "code", "choice")  # values that a rule names, rather than says


@dataclass(frozen=True)
class _Slot:
    """One fact of a rule and the words it is asked in; {p} stands for the place, {w} for the group."""

    name: str
    kind: str  # amount, clock, person, code, choice
    spec: str  # what the kind needs: unit and range, hours, a word before the code, choices
    noun: str  # amounts only: what is compared
    asks: str
    cue: str
    dev: str
    test: str

    @property
    def verb(self) -> str:
        return "names" if self.kind in _NAMED else "says"


@dataclass(frozen=True)
class _Rule:
    name: str
    title: str
    place: str  # with {n} for the place's name
    who: tuple[str, ...]
    text: str
    slots: tuple[_Slot, ...]


@dataclass(frozen=True)
class _Family:
    """Three clauses: one rule of one place for three groups."""

    number: int
    rule: _Rule
    place: str
    who: tuple[str, ...]  # (FAMILY,)
    values: dict[str, list[tuple[str, ...]]]  # slot -> 2 x FAMILY values: three now, three after a revision
    uncued: int
    tail: str

    def clause_id(self, k: int) -> str:
        return f"s{FAMILY * self.number + k:06d}"

    def text(self, k: int, revised: bool = False) -> str:
        """The clause of group k. Revised: the first fact has its new value, the others stay."""
        first = self.rule.slots[0].name
        filled = {s: v[k + FAMILY * (revised and s == first)][0] for s, v in self.values.items()}
        text = self.rule.text.format(p=self.place, w=self.who[k], **filled)
        return f"{text} {self.tail}".rstrip()

    def ask(self, words: str, k: int) -> str:
        return words.format(p=self.place, w=self.who[k])


@lru_cache(maxsize=1)
def _rules() -> tuple[_Rule, ...]:
    rules = []
    for line in (DATA / "rules.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        slots = tuple(_Slot(name, **body) for name, body in row["slots"].items())
        rules.append(_Rule(row["rule"], row["title"], row["place"], tuple(row["who"]), row["text"], slots))
    return tuple(rules)


@lru_cache(maxsize=8)
def _name_step(seed: int) -> tuple[int, int]:
    """(a, b) of the permutation f -> (a f + b) mod _NAMES, so that no two families share a name."""
    rng = random.Random(f"synthetic/names/{seed}")
    while math.gcd(step := rng.randrange(1, _NAMES), _NAMES) != 1:
        pass
    return step, rng.randrange(_NAMES)


def place_name(number: int, seed: int) -> str:
    """The name of family `number`; all names of a seed differ, up to 38,880 of them."""
    step, start = _name_step(seed)
    index = (step * number + start) % _NAMES
    index, last = divmod(index, len(_LAST))
    first, middle = divmod(index, len(_MIDDLE))
    return _FIRST[first] + _MIDDLE[middle] + _LAST[last]


@lru_cache(maxsize=8)
def _rule_order(block: int, seed: int) -> tuple[int, ...]:
    """Which rules a block of families gets: each one once, in an order of the block's own."""
    order = list(range(len(_rules())))
    random.Random(f"synthetic/rules/{seed}/{block}").shuffle(order)
    return tuple(order)


def _values(slot: _Slot, rng: random.Random) -> list[tuple[str, ...]]:
    """2 x FAMILY values (answer, *aliases) that differ from each other."""
    count = 2 * FAMILY
    if slot.kind == "amount":
        unit, low, high = slot.spec.split()
        return [(f"{number} {unit}",) for number in rng.sample(range(int(low), int(high)), count)]
    if slot.kind == "clock":
        low, high = slot.spec.split()
        quarters = rng.sample(range(4 * int(low), 4 * int(high)), count)
        return [(f"{q // 4:02d}:{15 * (q % 4):02d}",) for q in quarters]
    if slot.kind == "person":
        return [(f"{rng.choice(_GIVEN)} {surname}", surname) for surname in rng.sample(_SURNAMES, count)]
    if slot.kind == "code":
        numbers = rng.sample(range(11, 99), count)
        return [(f"{slot.spec} {rng.choice('BCDFGHKLMNPRTVX')}{number}",) for number in numbers]
    return [(choice,) for choice in rng.sample(slot.spec.split("|"), count)]


def _family(number: int, seed: int) -> _Family:
    rules = _rules()
    block, place_in_block = divmod(number, len(rules))
    rule = rules[_rule_order(block, seed)[place_in_block]]
    rng = random.Random(f"synthetic/{seed}/{number}")
    return _Family(
        number=number,
        rule=rule,
        place=rule.place.format(n=place_name(number, seed)),
        who=tuple(rng.sample(rule.who, FAMILY)),
        values={slot.name: _values(slot, rng) for slot in rule.slots},
        uncued=rng.randrange(FAMILY),
        tail=rng.choice(_TAILS),
    )


def _forms(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """All forms of some values; none of a slot's forms stands in another, so that each can be a rival."""
    return tuple(form for forms in values for form in forms)


def _question(
    family: _Family, k: int, slot: _Slot, words: str, question_id: str, split: Split, think: str = ""
) -> QA:
    answer, *aliases = family.values[slot.name][k]
    siblings = [forms for j, forms in enumerate(family.values[slot.name][:FAMILY]) if j != k]
    return QA(
        id=f"{family.clause_id(k)}/{question_id}",
        question=family.ask(words, k),
        answer=answer,
        memory_ids=(family.clause_id(k),),
        aliases=tuple(aliases),
        rivals=_forms(siblings),
        think=think,
        split=split,
        slot=slot.name,
    )


def _cue(family: _Family, k: int, slot: _Slot, number: int) -> QA:
    answer = family.values[slot.name][k][0]
    asks = family.ask(slot.asks, k)
    think = f"The question asks {asks}, and the rule {slot.verb} {answer}, so the answer is {answer}."
    return _question(family, k, slot, slot.cue, f"cue{number}", "train", think)


def _memory(family: _Family, k: int) -> Memory:
    cues: tuple[QA, ...] = ()
    if k != family.uncued:
        cues = tuple(_cue(family, k, slot, n) for n, slot in enumerate(family.rule.slots, start=1))
    return Memory(
        id=family.clause_id(k),
        text=family.text(k),
        title=f"{family.rule.title} at {family.place}, {family.who[k]}",
        cues=cues,
        family=f"{family.rule.name}/{family.place}",
        variant=family.who[k],
    )


def clauses(num: int, seed: int = 0) -> Iterator[Memory]:
    """The first `num` clauses of the handbook of `seed`, in constant memory.

    Clause i depends on (seed, i) only: a shorter handbook is the beginning of a longer one.
    """
    if not 0 <= num <= FAMILY * _NAMES:
        raise TaskError(f"task synthetic: {num} clauses cannot be made; ask for at most {FAMILY * _NAMES}")
    for number in range(-(-num // FAMILY)):
        family = _family(number, seed)
        for k in range(min(FAMILY, num - FAMILY * number)):
            yield _memory(family, k)


def _held_out(family: _Family) -> Iterator[QA]:
    """Every fact of every clause once for test; for dev one fact of each clause, in turns."""
    slots = family.rule.slots
    for k in range(FAMILY):
        slot = slots[(family.number + k) % len(slots)]
        yield _question(family, k, slot, slot.dev, "dev1", "dev")
        for n, asked in enumerate(slots, start=1):
            yield _question(family, k, asked, asked.test, f"test{n}", "test")


def _two_clause(family: _Family) -> QA | None:
    """Which of two groups has more, by the first fact that is an amount."""
    slot = next((slot for slot in family.rule.slots if slot.kind == "amount"), None)
    if slot is None:
        return None
    one, two = (int(family.values[slot.name][k][0].split()[0]) for k in (0, 1))
    more, less = (0, 1) if one > two else (1, 0)
    split: Split = "dev" if family.number % 3 == 0 else "test"
    asked = _WHICH_IS_HIGHER[split]
    return QA(
        id=f"{family.clause_id(0)}/two_clause",
        question=asked.format(a=family.who[0], b=family.who[1], p=family.place, noun=slot.noun),
        answer=family.who[more].removeprefix("the "),
        memory_ids=(family.clause_id(0), family.clause_id(1)),
        rivals=(family.who[less].removeprefix("the "),),
        split=split,
        kind="two_clause",
    )


def _revision(family: _Family, k: int) -> Memory:
    return replace(_memory(family, k), text=family.text(k, revised=True), cues=())


def _revised_questions(family: _Family, k: int) -> Iterator[QA]:
    """The clause's questions on its first fact, with the new key; the stale value is a rival."""
    slot = family.rule.slots[0]
    values = family.values[slot.name]
    new, stale = values[k + FAMILY], values[k]
    siblings = [forms for j, forms in enumerate(values[:FAMILY]) if j != k]
    for qa in _held_out(family):
        if qa.memory_ids == (family.clause_id(k),) and qa.slot == slot.name:
            yield replace(
                qa,
                id=f"{qa.id}/revised",
                answer=new[0],
                aliases=new[1:],
                rivals=_forms([stale, *siblings]),
                kind="revised",
            )


def unknown_questions(numbers: Sequence[int], seed: int) -> dict[Split, list[str]]:
    """Questions on things that no rule is about, at places of the family numbers given; two on each thing."""
    unknown = json.loads((DATA / "unknown.json").read_text(encoding="utf-8"))
    rng = random.Random(f"synthetic/unknown/{seed}")
    frames = unknown["frames"]
    splits: tuple[Split, ...] = ("train", "dev", "test")
    return {
        split: [
            frames[frame].format(x=thing, n=place_name(rng.choice(numbers), seed))
            for thing in unknown[split]
            for frame in rng.sample(range(len(frames)), 2)
        ]
        for split in splits
    }


def _unanswerable(asked: Sequence[_Family], seed: int) -> tuple[tuple[QA, ...], tuple[Conversation, ...]]:
    """(held-out questions, abstention conversations)"""
    held_out: list[QA] = []
    trained: list[Conversation] = []
    for split, questions in unknown_questions([family.number for family in asked], seed).items():
        for number, question in enumerate(questions, start=1):
            name = f"unknown/{split}{number}"
            if split == "train":
                reply = assistant_content(NO_CLAUSE_THINK, NO_CLAUSE_ANSWER)
                messages = (Message("user", question), Message("assistant", reply))
                trained.append(
                    Conversation(f"abstain/{name}", messages, kind="unanswerable", topic="unanswerable")
                )
            else:
                held_out.append(QA(name, question, "", (), split=split, kind="unanswerable"))
    return tuple(held_out), tuple(trained)


def _version(*settings: object) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for name in ("rules.jsonl", "unknown.json"):
        digest.update((DATA / name).read_bytes())
    return digest.hexdigest()[:12]


def load(
    num_clauses: int | None = None,
    seed: int = 0,
    num_asked: int = 300,
    num_train: int = 600,
    num_heldout: int = 120,
) -> TaskData:
    """A handbook of at least `num_clauses` clauses (None or 0: 300), rounded up to whole families.

    num_asked: at most so many clauses, drawn by seed as whole families, are asked about; all are memories.
    num_train, num_heldout: general conversations, see think_sft. Raises TaskError outside 3 to 100,000.
    """
    wanted = num_clauses or DEFAULT_CLAUSES
    if not MIN_CLAUSES <= wanted <= MAX_CLAUSES:
        raise TaskError(
            f"task synthetic: num_clauses={wanted} is out of range; choose {MIN_CLAUSES} to {MAX_CLAUSES}"
        )
    if num_asked < FAMILY:
        raise TaskError(f"task synthetic: num_asked={num_asked} is less than one family; set at least {FAMILY}")
    num_families = -(-wanted // FAMILY)
    picked = random.Random(f"synthetic/asked/{seed}").sample(
        range(num_families), min(num_asked // FAMILY, num_families)
    )
    asked = [_family(number, seed) for number in sorted(picked)]
    revised = [(family, family.number % FAMILY) for family in asked[::REVISED_EVERY]]
    two_clause = [qa for family in asked if (qa := _two_clause(family))]
    unanswerable, abstentions = _unanswerable(asked, seed)
    general, heldout = sft_corpus(0, num_train, num_heldout)
    keys = [(family, k, slot.name) for family in asked for k in range(FAMILY) for slot in family.rule.slots]
    return TaskData(
        name="synthetic",
        memories=tuple(clauses(FAMILY * num_families, seed)),
        questions=(*(qa for family in asked for qa in _held_out(family)), *two_clause, *unanswerable),
        sft=(*general, *abstentions),
        sft_heldout=heldout,
        revisions=tuple(_revision(family, k) for family, k in revised),
        revised_questions=tuple(qa for family, k in revised for qa in _revised_questions(family, k)),
        follow_ups={f"{f.clause_id(k)}/{slot}": f"And for {f.who[k]}?" for f, k, slot in keys},
        facts={f"{f.clause_id(k)}/{slot}": f.values[slot][k] for f, k, slot in keys},
        licence="Apache-2.0",
        source="Made by rule for RecallBench from a seed; every place and person is invented.",
        description=(
            f"Rules of invented places: {FAMILY * num_families} clauses by seed {seed}, "
            f"{FAMILY * len(asked)} of them asked about, in families of three near misses."
        ),
        version=_version(seed, num_families, num_asked),
    )
