"""How memory gets in: the interface that recall, SFT, RAG and the control arms share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from methods.parts import Part, ReadPiece, final_text, read, thought
from tasks.base import Conversation, Memory, Message


class MethodError(ValueError):
    """Something a user can put right: names the thing, the place and the fix in one sentence."""


class RefitNeeded(MethodError):
    """The method keeps its knowledge in weights: to change it, fit again on the changed set."""


@dataclass(frozen=True)
class Context:
    """What a method sees when it must answer. Never holds the gold answer."""

    messages: tuple[Message, ...]  # history (final answers only) + the user's question last
    max_new_tokens: int = 192


@dataclass(frozen=True)
class Lookup:
    """One recall or one retrieved passage, in the order used."""

    memory_id: str  # "" is the null memory: "no clause covers this"
    score: float  # cosine in [-1, 1]
    text: str  # what the model worked with: the decoded text (recall) or the passage (RAG)
    candidates: tuple[tuple[str, float], ...] = ()  # best first, with scores


@dataclass(frozen=True)
class Usage:
    """What one answer cost. Times and kv_bytes are 0 in batched runs, where they would mean nothing."""

    prompt_tokens: int
    new_tokens: int
    ttft_s: float = 0.0  # time to the first new token
    ttfa_s: float = 0.0  # time to the first token after </think>
    total_s: float = 0.0
    stage_s: dict[str, float] = field(default_factory=dict)  # eval.cost.STAGES, and "rest"
    kv_bytes: int = 0  # exact bytes of keys and values at the end
    truncated_turns: int = 0  # history turns cut to fit the context window
    searched_vectors: int = 0  # keys in the memory bank, counted once a recall
    encoder_tokens: int = 0  # read by the sentence encoder to look the question up
    forwards: int = 0  # passes of the model; of the whole batch in batched runs
    drafted: int = 0  # tokens that were offered as drafts, kept or refused
    dropped_passages: int | None = None  # passages that did not fit beside the history; None: none are shown


MemoryPath = Literal[
    "recall",  # decides itself, by a <recall> token, whether to look up
    "retrieve",  # looks up on every turn, before generating
    "weights",  # never looks up
]


@dataclass(frozen=True)
class Answer:
    parts: tuple[Part, ...]  # from the first new token to the stop token
    lookups: tuple[Lookup, ...]
    usage: Usage
    finished: bool = True  # False: cut by max_new_tokens
    memory_path: MemoryPath = "weights"  # how memories reach this method's answers, looked up this time or not

    @cached_property
    def raw(self) -> str:
        """All that was generated, control tokens included."""
        return "".join(part.text for part in self.parts)

    @cached_property
    def given(self) -> str:
        """The texts that were looked up: what they spell marks nothing."""
        return "\n".join(lookup.text for lookup in self.lookups)

    @cached_property
    def pieces(self) -> list[ReadPiece]:
        return read(self.parts, self.given)

    @cached_property
    def think(self) -> str:
        """Text of the think, closed or not, recalled texts included."""
        return thought(self.pieces)

    @cached_property
    def final(self) -> str:
        """The answer, as a reader is told it; "" where the think never closed."""
        return final_text(self.pieces, self.given)


@dataclass(frozen=True)
class FitReport:
    """What `fit` cost."""

    seconds: float
    forward_tokens: int  # non-padding tokens through the model, over all stages
    optimizer_steps: int
    bytes_stored: int = 0  # all that the method keeps beside the base weights: adapters, and bank or index
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)  # loss per step, per stage
    notes: dict[str, float] = field(default_factory=dict)  # per-stage seconds, self-tests, thresholds, threads
    index_bytes: int | None = None  # of bytes_stored, the bank or index; None: the report is from before this
    samples: dict[str, int] = field(default_factory=dict)  # trained on, by what they were drawn from


@dataclass(frozen=True)
class WriteReport:
    """What adding or replacing memories after the fit cost."""

    seconds: float
    num_memories: int
    trained_tokens: int
    bytes_stored: int  # of the bank or index alone, once written: adapters do not change
    exact: tuple[str, ...] = ()  # ids of memories whose text is decoded word for word where it was optimised
    inexact: tuple[str, ...] = ()  # ids of those whose text is not; both are empty where none is optimised
    steps: dict[str, int] = field(default_factory=dict)  # id -> optimiser steps


@runtime_checkable
class Method(Protocol):
    """Fit once, then answer; write and forget where the method can do so without a refit."""

    name: str

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport: ...

    def answer(self, ctx: Context) -> Answer: ...

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]: ...

    def write(self, memories: Sequence[Memory]) -> WriteReport: ...

    def forget(self, ids: Sequence[str]) -> None: ...

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...


@runtime_checkable
class RecallSwitch(Protocol):
    """A method whose recall can be switched off, to see what its weights know without it."""

    def enable_recall(self, enabled: bool) -> None: ...


@runtime_checkable
class Indexer(Protocol):
    """A method that can add memories to what it searches at less cost than a write that makes them answerable."""

    def index(self, memories: Sequence[Memory]) -> WriteReport: ...


@runtime_checkable
class Stored(Protocol):
    """A method that keeps its memories beside the weights, in a bank or an index."""

    def stored_bytes(self) -> int:
        """Of the bank or index as it is now; adapters are not counted."""
