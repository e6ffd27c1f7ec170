"""Short rules to read, and questions on them in many ways of asking.

A rule is a text with slots and, for each, what may stand there and how people ask for it; a passage is a rule with
values drawn. Passages of one rule are near misses for each other: they differ in values and in whom they hold for.
One rule in ten, by its text, is held out: nothing is ever trained on it.

The files of `RULES`, a block a rule: its sentences; at times `@ at | WHOM IT HOLDS FOR; ...`; then for each fact
`slot | kind | values | what is asked` and its questions. Of the values one is taken; "2-6" in it is a random
number, "@" a random letter; `shown => answer` where the answer is other words than what stands in the text.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RULES = Path(__file__).parent / "data" / "general" / "reading_rules"
ASKERS = ("Anna", "Ben", "Clara", "David", "Ella", "Felix", "Greta", "Hugo", "Iris", "Jonas", "Lena", "Oscar")
FIRST_NAMES = (  # of the people in rules; none of them is in ASKERS
    "Ada", "Bojan", "Mirela", "Tobias", "Wanda", "Kofi", "Priya", "Leandro", "Sunniva", "Edda", "Farah", "Gwen",
    "Hamid", "Judith", "Karel", "Lotte", "Mona", "Rufus", "Selma", "Amir", "Noel", "Tilda",
)  # fmt: skip
LAST_NAMES = (
    "Abbot", "Birk", "Castell", "Drummond", "Eklund", "Farrow", "Granger", "Holbein", "Inwood", "Jarvis", "Keller",
    "Mercer", "Norling", "Okafor", "Penrose", "Quist", "Ridley", "Sayer", "Thorne", "Usher", "Weller", "Yates",
)  # fmt: skip
FORM_LETTERS = "BDFHLNVW"
NAMED_KINDS = {"person", "role", "form", "place", "code", "colour"}  # of any other kind the rule "says" it
NAMED = ("{asked} It is about {at}.", "As to {at}: {asked}", "{asked} I mean {at}.", "This is on {at}. {asked}")


def held_out(key: object, every: int = 3) -> bool:
    """Whether something of this key is held out, one in so many, whatever the seed of a corpus is."""
    return zlib.crc32(repr(key).encode()) % every == 0


@dataclass(frozen=True)
class Fact:
    """One slot of a rule: what may stand in it, and how it is asked for."""

    slot: str
    kind: str  # what sort of value it has, e.g. "money"
    values: tuple[str, ...]  # patterns of values; a person has none, names are drawn
    asks: str  # "how long a novel may stay out", for the chain
    questions: tuple[str, ...]

    def draw(self, rng: random.Random) -> tuple[str, str]:
        """What stands in the text, and the answer."""
        if self.kind == "person":
            name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
            return name, name
        shown, _, answer = rng.choice(self.values).replace("@", rng.choice(FORM_LETTERS)).partition(" => ")
        shown = re.sub(r"(\d+)-(\d+)", lambda found: str(rng.randint(int(found[1]), int(found[2]))), shown)
        return shown, answer or shown


@dataclass(frozen=True)
class Rule:
    text: str  # some sentences with a {slot} for every fact, and {at} where it has variants
    facts: tuple[Fact, ...]
    variants: tuple[str, ...] = ()  # whom or what it may hold for

    @property
    def name(self) -> str:
        """Of its text, so that it stays when rules are added."""
        return f"{zlib.crc32(self.text.encode()):08x}"

    @property
    def held_out(self) -> bool:
        return held_out(self.text, 10)


@dataclass(frozen=True)
class Passage:
    """A rule with values drawn."""

    rule: Rule
    text: str
    variant: str  # "" where the rule has none
    shown: Mapping[str, str]  # by slot
    answers: Mapping[str, str]  # by slot


def _parsed(block: str) -> Rule:
    lines = block.splitlines()
    starts = [n for n, line in enumerate(lines) if " | " in line and not line.startswith("@ ")]
    variants = [line.removeprefix("@ at | ") for line in lines[: starts[0]] if line.startswith("@ ")]
    facts = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        slot, kind, values, asks = lines[start].split(" | ")
        questions = tuple(line.removeprefix("- ") for line in lines[start + 1 : end])
        facts.append(Fact(slot, kind, tuple(values.split("; ")), asks, questions))
    text = " ".join(line for line in lines[: starts[0]] if not line.startswith("@ "))
    return Rule(text, tuple(facts), tuple(variants[0].split("; ")) if variants else ())


@cache
def rules() -> tuple[Rule, ...]:
    """The rules of all files, in their order."""
    files = sorted(RULES.glob("*.txt"))
    return tuple(_parsed(b) for f in files for b in f.read_text(encoding="utf-8").strip().split("\n\n"))


def draw_passage(rng: random.Random, rule: Rule, beside: Sequence[Passage] = ()) -> Passage:
    """Each value stands in the text once: "every 2 weeks" beside "2 weeks" would be there twice.

    beside: passages of the same rule, whose variants are not taken again as long as there are others.
    """
    taken = {passage.variant for passage in beside}
    variants = [v for v in rule.variants if v not in taken] or rule.variants or ("",)
    while True:
        variant = rng.choice(variants)
        drawn = {fact.slot: fact.draw(rng) for fact in rule.facts}
        shown = {slot: value for slot, (value, _) in drawn.items()}
        text = rule.text.format(**shown, at=variant)
        if all(text.count(value) == 1 for value in shown.values()):
            return Passage(rule, text, variant, shown, {slot: answer for slot, (_, answer) in drawn.items()})


def ask(rng: random.Random, passage: Passage, fact: Fact, who: str = "", named: bool = False) -> str:
    """One of the fact's questions that does not hold its answer. named: it says whom the passage holds for."""
    answer = passage.answers[fact.slot]
    asked = rng.choice([q for q in fact.questions if answer in ("yes", "no") or answer not in q])
    names = "{at}" in asked
    asked = asked.format(who=who or rng.choice(ASKERS), at=passage.variant)
    if not named or names or not passage.variant:
        return asked
    return rng.choice(NAMED).format(asked=asked, at=passage.variant)


def reasoning(passage: Passage, fact: Fact) -> str:
    """The question in the words of the rule, what the rule says, the answer."""
    shown, answer = passage.shown[fact.slot], passage.answers[fact.slot]
    says = f"names {shown}" if fact.kind in NAMED_KINDS else f"says {shown}"
    asks = fact.asks.format(at=passage.variant) if "{" in fact.asks else fact.asks
    return f"The question asks {asks}, and the rule {says}, so the answer is {answer}."
