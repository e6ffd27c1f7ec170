"""Does the memory hold through a dialogue? Accuracy by kind, by distance and by turn.

Each metric takes the records of *one* method and gives a Sample (one value an answer that it applies
to); `eval.stats` turns it into a number with an interval. A scored turn is one with a key: every kind
but `ordinary` and `filler`.

First asks, delayed by d turns of filler, carry the retention claim. A re-ask can be answered by copying
the history, so re-asks are reported apart. Cued and uncued clauses are two splits, reported apart too
(`about`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from eval.records import RecordError, TurnRecord
from eval.scoring import (
    ScoringError,
    abstains,
    asserts_key,
    exact_match,
    held_values,
    is_correct,
    normalise,
    token_f1,
)
from eval.stats import Sample, sample
from tasks.base import QA, TurnKind

DISTANCES = (0, 1, 2, 4, 8)


def key_of(record: TurnRecord) -> QA | None:
    """The key of a scored turn; None on turns that are not scored. Raises RecordError where one has none."""
    if record.kind in ("ordinary", "filler"):
        return None
    if record.qa is None:
        raise RecordError(f"record {record.id}: a {record.kind} without a key (qa); run it again")
    return record.qa


def answerable_key_of(record: TurnRecord) -> QA | None:
    """The key of a scored turn that a clause answers."""
    qa = key_of(record)
    return qa if qa is not None and qa.memory_ids else None


def _scored(record: TurnRecord, score: Callable[[str, QA], float | bool]) -> float | None:
    qa = key_of(record)
    if qa is None:
        return None
    try:
        return float(score(record.answer.final, qa))
    except ScoringError as error:
        raise RecordError(f"record {record.id}: {error}") from error


def correct(record: TurnRecord) -> bool | None:
    """*Correct* as in eval.scoring.is_correct; None on turns that are not scored."""
    score = _scored(record, is_correct)
    return None if score is None else bool(score)


def accuracy(records: Sequence[TurnRecord]) -> Sample:
    """Share of the scored answers that are correct. DESIGN sections 3 and 5."""
    return sample(records, correct, "no scored answer")


def accuracy_loose(records: Sequence[TurnRecord]) -> Sample:
    """Share of the scored answers that assert the key and no rival, whatever else they hold (eval.scoring)."""
    return sample(records, lambda r: _scored(r, asserts_key), "no scored answer")


def exact_matches(records: Sequence[TurnRecord]) -> Sample:
    """Share of the scored answers that equal the key or an alias once normalised. SQuAD EM."""
    return sample(records, lambda r: _scored(r, exact_match), "no scored answer")


def f1(records: Sequence[TurnRecord]) -> Sample:
    """Mean token F1 of the scored answers against key and aliases. SQuAD F1."""
    return sample(records, lambda r: _scored(r, token_f1), "no scored answer")


def unknown_to(control: Sequence[TurnRecord], records: Sequence[TurnRecord]) -> list[TurnRecord]:
    """The scored answers to what the control arm did not answer right, paired by seed, dialogue and turn.

    What a method without any memory answers right (an abstention among them) shows nothing about memory.
    """
    return _where(control, records, right=False)


def known_to(control: Sequence[TurnRecord], records: Sequence[TurnRecord]) -> list[TurnRecord]:
    """The scored answers to what the control arm answered right without any memory: the rest of `unknown_to`."""
    return _where(control, records, right=True)


def _where(control: Sequence[TurnRecord], records: Sequence[TurnRecord], *, right: bool) -> list[TurnRecord]:
    asked = {(r.seed, r.dialogue_id, r.turn) for r in control if correct(r) is right}
    return [r for r in records if (r.seed, r.dialogue_id, r.turn) in asked]


def about(records: Sequence[TurnRecord], cued: bool) -> list[TurnRecord]:
    """The answers to questions about cued clauses, or about uncued ones. DESIGN section 3.

    A question about several clauses is cued where all of them are. Raises RecordError where a question that a
    clause answers does not say which it is.
    """
    for record in records:
        if record.cued is None and answerable_key_of(record) is not None:
            raise RecordError(f"record {record.id}: does not say whether its clause is cued; run it again")
    return [record for record in records if record.cued is cued]


def apart(drawn: Sample, cued: bool) -> Sample:
    """A sample of the answers of `about`; where it is empty its reason says of which clauses."""
    if len(drawn):
        return drawn
    return replace(drawn, reason=f"{drawn.reason} ({'cued' if cued else 'uncued'} clauses)")


def history_cut(records: Sequence[TurnRecord]) -> Sample:
    """Share of all answers for which messages of the history were cut to fit the context window.

    The cut is the same for every method (methods.chat.history_room), so a share above 0 says that the dialogues
    are too long for this model, not that one method forgets more.
    """
    return sample(records, lambda r: r.answer.usage.truncated_turns > 0, "no generated answer")


def passages_dropped(records: Sequence[TurnRecord]) -> Sample:
    """Share of the answers with passages in their prompt for which some did not fit beside the history."""

    def value(record: TurnRecord) -> bool | None:
        dropped = record.answer.usage.dropped_passages
        return None if dropped is None else dropped > 0

    return sample(records, value, "it shows no passages, or its answers do not count those that did not fit")


def _of_kind(records: Sequence[TurnRecord], *kinds: TurnKind) -> list[TurnRecord]:
    return [record for record in records if record.kind in kinds]


def _distance(record: TurnRecord) -> int:
    if record.distance is None:
        raise RecordError(f"record {record.id}: a {record.kind} without a distance; run it again")
    return record.distance


def first_ask(records: Sequence[TurnRecord], cued: bool | None = None) -> Sample:
    """Accuracy of first asks; only those of cued (True) or of uncued (False) clauses where wanted."""
    asks = _of_kind(records, "first_ask")
    for record in asks:
        if record.cued is None:
            raise RecordError(f"record {record.id}: a first ask that does not say whether its clause is cued")
    name = {None: "", True: " about a cued clause", False: " about an uncued clause"}[cued]
    return sample(asks, lambda r: correct(r) if cued in (None, r.cued) else None, f"no first ask{name}")


def at_distance(
    records: Sequence[TurnRecord], d: int, kind: TurnKind = "first_ask", cued: bool | None = None
) -> Sample:
    """Accuracy of first asks after d turns of filler, or of re-asks d turns behind what they repeat."""
    asks = _of_kind(records, kind)
    return sample(
        asks,
        lambda r: correct(r) if _distance(r) == d and cued in (None, r.cued) else None,
        f"no {kind} at distance {d}",
    )


def by_kind(records: Sequence[TurnRecord], kind: TurnKind) -> Sample:
    """Accuracy of one kind of turn: follow_up, near_miss, contradiction, two_clause, ..."""
    return sample(_of_kind(records, kind), correct, f"no {kind} turn")


def by_turn(records: Sequence[TurnRecord]) -> dict[TurnKind, dict[int, Sample]]:
    """Accuracy of each kind of turn by the turn's index in the dialogue (fillers counted), in order of the index.

    Kinds stay apart: which of them stand at a turn differs, and they are not equally hard.
    """
    places = sorted({(record.kind, record.turn) for record in records if key_of(record) is not None})
    curves: dict[TurnKind, dict[int, Sample]] = {}
    for kind, turn in places:
        here = [record for record in records if (record.kind, record.turn) == (kind, turn)]
        curves.setdefault(kind, {})[turn] = accuracy(here)
    return curves


def same_facts(records: Sequence[TurnRecord], d: int) -> list[TurnRecord]:
    """The first asks of the facts that were asked for at distance d, at whatever distance: like with like."""
    asks = _of_kind(records, "first_ask")
    facts = {(r.seed, r.qa.id) for r in asks if r.qa is not None and _distance(r) == d}
    return [r for r in asks if r.qa is not None and (r.seed, r.qa.id) in facts]


def behind_a_clause(records: Sequence[TurnRecord]) -> list[TurnRecord]:
    """The answers behind a question on a clause, asked earlier in the same dialogue."""
    first: dict[tuple[int, str], int] = {}
    for r in records:
        if r.qa is not None and r.qa.memory_ids:
            place = r.seed, r.dialogue_id
            first[place] = min(r.turn, first.get(place, r.turn))
    return [r for r in records if first.get((r.seed, r.dialogue_id), r.turn) < r.turn]


# --- the same fact twice ------------------------------------------------------------------------


def repeats(records: Sequence[TurnRecord], kind: TurnKind = "re_ask") -> list[tuple[TurnRecord, TurnRecord]]:
    """(earlier, later) for every turn of the kind: the latest earlier ask of the same fact in its dialogue.

    A fact is a slot of a clause. Raises RecordError where a turn repeats nothing.
    """
    asked: dict[tuple[int, str, tuple[str, ...], str], TurnRecord] = {}
    pairs: list[tuple[TurnRecord, TurnRecord]] = []
    for record in sorted(records, key=lambda r: (r.seed, r.dialogue_id, r.turn)):
        qa = answerable_key_of(record)
        if record.kind == kind and qa is None:
            raise RecordError(f"record {record.id}: a {kind} of a question that no clause answers; run it again")
        if qa is None:
            continue
        fact = (record.seed, record.dialogue_id, qa.memory_ids, qa.slot or normalise(qa.answer))
        if record.kind == kind:
            if fact not in asked:
                raise RecordError(
                    f"record {record.id}: a {kind} of a fact that its dialogue did not ask for before; "
                    "an earlier record is missing"
                )
            pairs.append((asked[fact], record))
        asked[fact] = record
    return pairs


def _value_given(record: TurnRecord) -> str:
    """The answer reduced to what it says: its abstention, the known values it holds, or its tokens."""
    final, qa = record.answer.final, record.qa
    assert qa is not None
    if abstains(final, qa):
        return "abstains"
    holds_key, rivals = held_values(final, qa)
    if holds_key or rivals:
        known = {normalise(rival) for rival in rivals} | ({normalise(qa.answer)} if holds_key else set())
        return "holds " + " | ".join(sorted(known))
    return normalise(final)


def consistency(records: Sequence[TurnRecord]) -> Sample:
    """Share of re-asks answered as the earlier ask of the same fact in the same dialogue.

    Answers are compared by what they say: the key and rival values they hold, abstention, or else all
    their normalised tokens; so "40 euros" and "It is EUR 40." agree. No answer agrees with nothing.
    """
    earlier = {later.id: first for first, later in repeats(records)}
    return sample(
        _of_kind(records, "re_ask"),
        lambda r: bool(r.answer.final.strip()) and _value_given(r) == _value_given(earlier[r.id]),
        "no re-ask",
    )


def flips(records: Sequence[TurnRecord], kind: TurnKind = "re_ask") -> Sample:
    """Of the turns of the kind whose fact was answered right before: share that are wrong now.

    kind "re_ask": forgetting within the dialogue; "contradiction": giving in to the user's wrong claim.
    """
    earlier = {later.id: first for first, later in repeats(records, kind)}
    return sample(
        _of_kind(records, kind),
        lambda r: not correct(r) if correct(earlier[r.id]) else None,
        f"no {kind} of a fact that was answered right before",
    )


# --- saying that one does not know ---------------------------------------------------------------


def abstention_precision(records: Sequence[TurnRecord]) -> Sample:
    """Of the scored answers that abstain: share whose question is unanswerable."""

    def value(record: TurnRecord) -> bool | None:
        qa = key_of(record)
        return not qa.memory_ids if qa is not None and abstains(record.answer.final, qa) else None

    return sample(records, value, "it never abstains")


def abstention_recall(records: Sequence[TurnRecord]) -> Sample:
    """Of the unanswerable questions: share where the answer abstains."""

    def value(record: TurnRecord) -> bool | None:
        qa = key_of(record)
        return abstains(record.answer.final, qa) if qa is not None and not qa.memory_ids else None

    return sample(records, value, "no unanswerable question")
