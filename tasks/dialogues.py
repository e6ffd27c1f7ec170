"""Scripted dialogues: what the user says is fixed beforehand, by seed, for every method alike.

Each fact is asked for in two clause dialogues: at once, and after filler, so that a curve over the
distance compares the same facts. One of the two goes on with one or two later turns about clauses,
the other with a turn that no clause answers (`unanswerable`, `ordinary`): what a method does there is
seen behind a clause as well as in an empty history. The later kinds and the distances run in cycles of
coprime length, separately for cued and uncued clauses, so that every kind and every distance is
covered evenly on both sides.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.base import QA, Dialogue, Language, Memory, Split, TaskData, TaskError, Turn, TurnKind
from tasks.handbook import rivals_of
from tasks.keys import with_own_clause
from tasks.think_sft import Filler, filler_exchanges

# Later turns of a clause dialogue, dialogue by dialogue: each of the four kinds three times in
# eight. A re_ask comes first (its distance is filled with small talk only), and a follow_up stands
# right after an ask of the same slot, since it is elliptic.
PATTERNS: tuple[tuple[TurnKind, ...], ...] = (
    ("re_ask",),
    ("follow_up", "near_miss"),
    ("contradiction",),
    ("re_ask", "follow_up"),
    ("near_miss",),
    ("re_ask", "contradiction"),
    ("follow_up",),
    ("contradiction", "near_miss"),
)
RE_ASKS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Could you remind me: {question}",
        "Sorry, once more: {question}",
        "I did not write it down. {question}",
        "Let me ask that again. {question}",
        "Just to be sure: {question}",
    ),
    "zh": (
        "麻烦再提醒我一下：{question}",
        "抱歉，再问一遍：{question}",
        "我没有记下来。{question}",
        "让我再问一次。{question}",
        "只是想确认一下：{question}",
    ),
}
CONTRADICTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "I was told it is {rival}. {question}",
        "A colleague says it is {rival}. {question}",
        "I had {rival} in mind. {question}",
        "Somebody told me {rival}. {question}",
    ),
    "zh": (
        "有人告诉我是{rival}。{question}",
        "一位同事说是{rival}。{question}",
        "我印象里是{rival}。{question}",
        "我听说是{rival}。{question}",
    ),
}


@dataclass(frozen=True)
class DialogueOptions:
    distances: tuple[int, ...] = (0, 1, 2, 4, 8)  # filler turns before a first ask or a re-ask
    questions_per_clause: int = 2  # facts asked for per clause, at most its questions of the split
    max_unanswerable: int = 20  # half of them behind a clause's question, as of the ordinary turns
    max_two_clause: int = 8
    num_ordinary: int = 20


class _Fillers:
    """Hands out filler turns in a ring, which is long enough that a dialogue gets none twice."""

    def __init__(self, exchanges: Sequence[Filler], most: int) -> None:
        """most: filler turns that one dialogue may hold."""
        if len(exchanges) < most:
            raise TaskError(
                f"dialogues: one may hold {most} filler turns and only {len(exchanges)} exist; "
                "set smaller distances or more held-out general conversations"
            )
        self._exchanges = exchanges
        self._next = 0

    def take(self, count: int) -> list[Turn]:
        picked = [self._exchanges[(self._next + n) % len(self._exchanges)] for n in range(count)]
        self._next += count
        return [Turn("filler", filler.user, reply=filler.reply, topic=filler.topic) for filler in picked]


@dataclass(frozen=True)
class _Clauses:
    """The task as the dialogue builder looks things up in it."""

    task: TaskData
    siblings: Mapping[str, tuple[Memory, ...]]  # clause id -> the other clauses of its family
    asked: Mapping[str, tuple[QA, ...]]  # clause id -> its single questions of the split

    @classmethod
    def of(cls, task: TaskData, split: Split) -> _Clauses:
        families: dict[str, list[Memory]] = {}
        for memory in task.memories:
            if memory.family:
                families.setdefault(memory.family, []).append(memory)
        siblings = {
            memory.id: tuple(other for other in families.get(memory.family, ()) if other.id != memory.id)
            for memory in task.memories
        }
        asked: dict[str, tuple[QA, ...]] = {memory.id: () for memory in task.memories}
        for qa in task.held_out(split):
            for memory_id in qa.memory_ids:
                asked[memory_id] = (*asked.get(memory_id, ()), qa)
        return cls(task, siblings, asked)


@dataclass(frozen=True)
class _Drawn:
    """A turn that no clause answers."""

    id: str
    turn: Turn


def _re_ask(qa: QA, clauses: _Clauses, rng: random.Random) -> tuple[QA, str]:
    """The clause's other question on the same slot, or the same one in a wrapping."""
    for other in clauses.asked[qa.memory_ids[0]]:
        if other.slot == qa.slot and other.id != qa.id:
            return other, other.question
    return qa, rng.choice(RE_ASKS[clauses.task.language]).format(question=qa.question)


def _follow_up(qa: QA, clauses: _Clauses, rng: random.Random) -> tuple[QA, str] | None:
    """The elliptic question about a sibling; the first clause's value is among the rivals."""
    task = clauses.task
    siblings = list(clauses.siblings[qa.memory_ids[0]])
    rng.shuffle(siblings)
    for sibling in siblings:
        slot_id = f"{sibling.id}/{qa.slot}"
        if slot_id not in task.follow_ups or slot_id not in task.facts:
            continue
        forms = task.facts[slot_id]
        others = [task.facts.get(f"{other.id}/{qa.slot}", ()) for other in clauses.siblings[sibling.id]]
        asked = task.follow_ups[slot_id]
        own = [f for place, f in task.facts.items() if place.startswith(f"{sibling.id}/") and place != slot_id]
        follow_up = QA(
            id=f"{slot_id}/follow_up",
            question=asked,
            answer=forms[0],
            memory_ids=(sibling.id,),
            aliases=forms[1:],
            rivals=rivals_of(forms, [(qa.answer, *qa.aliases), *others]),
            split=qa.split,
            slot=qa.slot,
        )
        return with_own_clause(follow_up, sibling.text, own), asked
    return None


def _near_miss(qa: QA, clauses: _Clauses, used: Iterable[str], rng: random.Random) -> tuple[QA, str] | None:
    """A sibling's own question: on the same slot, of a sibling not asked about yet, where there is one."""
    used = set(used)
    choices = [other for sib in clauses.siblings[qa.memory_ids[0]] for other in clauses.asked[sib.id]]
    rng.shuffle(choices)
    choices.sort(key=lambda other: (other.slot != qa.slot, other.memory_ids[0] in used))
    return (choices[0], choices[0].question) if choices else None


def _contradiction(qa: QA, clauses: _Clauses, rng: random.Random) -> tuple[QA, str] | None:
    """The user claims a sibling's value and asks again; the key stays."""
    facts = (clauses.task.facts.get(f"{sib.id}/{qa.slot}", ()) for sib in clauses.siblings[qa.memory_ids[0]])
    answers = [forms[0] for forms in facts if forms and forms[0] in qa.rivals] or list(qa.rivals[:1])
    if not answers:
        return None
    wrapping = rng.choice(CONTRADICTIONS[clauses.task.language])
    return qa, wrapping.format(rival=rng.choice(answers), question=qa.question)


def _clause_dialogue(
    dialogue_id: str,
    qa: QA,
    delay: int,
    distances: Iterator[int],
    pattern: Sequence[TurnKind],
    clauses: _Clauses,
    fillers: _Fillers,
    rng: random.Random,
) -> Dialogue:
    """Filler, the first ask, the later turns; a kind that the clause cannot have becomes a re_ask."""
    turns = [*fillers.take(delay), Turn("first_ask", qa.question, qa, distance=delay)]
    last_ask = delay  # index of the latest turn that asked for this fact
    for kind in pattern:
        asked: tuple[QA, str] | None = None
        if kind == "follow_up":
            asked = _follow_up(qa, clauses, rng)
        elif kind == "near_miss":
            used = [memory_id for turn in turns if turn.qa for memory_id in turn.qa.memory_ids]
            asked = _near_miss(qa, clauses, used, rng)
        elif kind == "contradiction":
            asked = _contradiction(qa, clauses, rng)
        if asked is None:
            if any(turn.kind == "re_ask" for turn in turns):
                continue
            kind, asked = "re_ask", _re_ask(qa, clauses, rng)
            turns += fillers.take(next(distances))
        key, user = asked
        turns.append(Turn(kind, user, key, distance=len(turns) - 1 - last_ask))
        if kind in ("re_ask", "contradiction"):
            last_ask = len(turns) - 1
    return Dialogue(dialogue_id, tuple(turns), memory_id=qa.memory_ids[0])


def _cycle(items: Sequence[int], rng: random.Random) -> Iterator[int]:
    """Round after round of all items, each round in a new order: balanced, and not in step with others."""
    while True:
        yield from rng.sample(items, len(items))


def _clause_dialogues(
    asked: Sequence[QA],
    clauses: _Clauses,
    distances: Sequence[int],
    fillers: _Fillers,
    behind: Sequence[_Drawn],
    rng: random.Random,
) -> list[Dialogue]:
    """Two dialogues a question; one where there is a single distance, unless one of `behind` ends a second."""
    near, *far = sorted(set(distances))
    ends = dict(zip((qa.id for qa in rng.sample(asked, len(asked))), behind, strict=False))
    dialogues: dict[str, list[Dialogue]] = {}
    for cued in (True, False):
        side = [qa for qa in asked if clauses.task.memory(qa.memory_ids[0]).cued == cued]
        rng.shuffle(side)
        delays, gaps = _cycle(far, rng), _cycle(distances, rng)
        swaps = _cycle((0, 1), rng)
        first = rng.randrange(len(PATTERNS))
        for n, qa in enumerate(side):
            pattern = PATTERNS[(first + n) % len(PATTERNS)]
            both = [near, next(delays) if far else near]
            longer = next(swaps)  # which of the two goes on with later turns about clauses
            long = _clause_dialogue(f"clause/{qa.id}", qa, both[longer], gaps, pattern, clauses, fillers, rng)
            short = _clause_dialogue(
                f"clause/{qa.id}/again", qa, both[1 - longer], gaps, (), clauses, fillers, rng
            )
            if qa.id in ends:
                end = replace(ends[qa.id].turn, distance=len(short.turns))
                short = replace(short, turns=(*short.turns, end))
            dialogues[qa.id] = [long, short] if far or qa.id in ends else [long]
    return [dialogue for qa in asked for dialogue in dialogues[qa.id]]


def _unanswerable(task: TaskData, split: Split, limit: int, rng: random.Random) -> list[_Drawn]:
    questions = list(task.held_out(split, "unanswerable"))
    picked = rng.sample(questions, min(limit, len(questions)))
    return [_Drawn(qa.id, Turn("unanswerable", qa.question, qa)) for qa in picked]


def _ordinary(task: TaskData, count: int, rng: random.Random) -> list[_Drawn]:
    """Held-out general conversations, topic after topic; `reply` holds the corpus's own chain and answer."""
    by_topic: dict[str, list[_Drawn]] = {}
    for conversation in task.sft_heldout:
        if len(conversation.messages) == 2:
            user, assistant = conversation.messages
            turn = Turn("ordinary", user.content, reply=assistant.content, topic=conversation.topic)
            by_topic.setdefault(conversation.topic, []).append(_Drawn(conversation.id, turn))
    for turns in by_topic.values():
        rng.shuffle(turns)
    most = max(map(len, by_topic.values()), default=0)
    rounds = [pool[n] for n in range(most) for pool in by_topic.values() if n < len(pool)]
    return rounds[:count]


def _behind(*kinds: Sequence[_Drawn]) -> list[_Drawn]:
    """Every other turn of each kind, the kinds in turn: those that stand behind a clause's question."""
    rounds = itertools.zip_longest(*(drawn[1::2] for drawn in kinds))
    return [drawn for pair in rounds for drawn in pair if drawn is not None]


def _alone(drawn: Sequence[_Drawn], fillers: _Fillers) -> list[Dialogue]:
    """A dialogue a turn, every other one after a filler."""
    dialogues = []
    for n, one in enumerate(drawn):
        turns = (*fillers.take(n % 2), replace(one.turn, distance=n % 2))
        dialogues.append(Dialogue(f"{one.turn.kind}/{one.id}", turns))
    return dialogues


def _two_clause_dialogues(task: TaskData, split: Split, limit: int, rng: random.Random) -> list[Dialogue]:
    ids = {memory.id for memory in task.memories}
    questions = [qa for qa in task.held_out(split, "two_clause") if ids.issuperset(qa.memory_ids)]
    picked = rng.sample(questions, min(limit, len(questions)))
    return [
        Dialogue(f"two_clause/{qa.id}", (Turn("two_clause", qa.question, qa, distance=0),), qa.memory_ids[0])
        for qa in picked
    ]


def check_dialogues(task: TaskData, dialogues: Iterable[Dialogue]) -> None:
    """Refuses a dialogue that refers to a clause that the task does not have."""
    ids = {memory.id for memory in task.memories}
    for dialogue in dialogues:
        asked = [memory_id for turn in dialogue.turns if turn.qa for memory_id in turn.qa.memory_ids]
        for memory_id in (dialogue.memory_id, *asked):
            if memory_id and memory_id not in ids:
                raise TaskError(
                    f"task {task.name}: dialogue {dialogue.id!r} refers to the clause {memory_id!r}, "
                    "which the task does not have; add the clause or drop the question"
                )


def build_dialogues(
    task: TaskData,
    seed: int,
    split: Split = "test",
    options: DialogueOptions = DialogueOptions(),
) -> tuple[Dialogue, ...]:
    """All scripted dialogues of a split; the same for the same task, seed, split and options.

    `Turn.distance` counts the turns between a turn and what it asks about: the start of the dialogue
    for a first ask, the latest turn that asked for the first clause's fact for the later kinds.
    """
    rng = random.Random(f"dialogues/{seed}/{split}")
    for qa in task.held_out(split):
        for memory_id in qa.memory_ids:
            if all(memory.id != memory_id for memory in task.memories):
                raise TaskError(
                    f"task {task.name}: question {qa.id!r} refers to the clause {memory_id!r}, "
                    "which the task does not have; add the clause or drop the question"
                )
    # At most two stretches of filler in a dialogue: before the first ask and before the re-ask.
    fillers = _Fillers(filler_exchanges(task.sft_heldout, seed), most=max(2 * max(options.distances), 1))
    clauses = _Clauses.of(task, split)
    asked = [qa for m in task.memories for qa in clauses.asked[m.id][: options.questions_per_clause]]
    unanswerable = _unanswerable(task, split, options.max_unanswerable, rng)
    ordinary = _ordinary(task, options.num_ordinary, rng)
    behind = _behind(unanswerable, ordinary)[: len(asked)]
    dialogues = (
        *_clause_dialogues(asked, clauses, options.distances, fillers, behind, rng),
        *_alone([one for one in unanswerable if one not in behind], fillers),
        *_two_clause_dialogues(task, split, options.max_two_clause, rng),
        *_alone([one for one in ordinary if one not in behind], fillers),
    )
    check_dialogues(task, dialogues)
    return dialogues
