"""Control arms that bound the table. Off by default; `run_methods` names them.

none          the same SFT corpus and no memories: what the model knows or guesses
oracle_text   the gold clause alone in the prompt: what the reader could do at best
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from methods.rag import Passage, RagConfig, RagMethod
from methods.setup import MethodSetup
from methods.sft import SftConfig, SftMethod
from tasks.base import Memory, Message


def none(setup: MethodSetup) -> SftMethod:
    """SFT on the general corpus only: same budget, same format, no clause ever seen."""
    return SftMethod(setup, SftConfig(knowledge=False), "none")


class GoldRetriever:
    """Knows each question's clauses. Training questions find their own clause through their cue."""

    def __init__(self, gold: Mapping[str, Sequence[str]]) -> None:
        self._gold = gold  # question text -> clause ids
        self._texts: dict[str, str] = {}

    def upsert(self, memories: Sequence[Memory]) -> None:
        self._texts.update({m.id: m.text for m in memories})

    def delete(self, ids: Sequence[str]) -> None:
        for memory_id in ids:
            self._texts.pop(memory_id, None)

    def retrieve(
        self, conversations: Sequence[Sequence[Message]], top_k: int
    ) -> tuple[list[list[Passage]], dict[str, float]]:
        ids = [self._gold.get(messages[-1].content, ()) for messages in conversations]
        return [[Passage(i, self._texts[i], 1.0) for i in row if i in self._texts] for row in ids], {}

    def save(self, path: Path) -> None:
        (path / "index.json").write_text(json.dumps(self._texts, ensure_ascii=False), encoding="utf-8")

    def load(self, path: Path) -> None:
        self._texts = json.loads((path / "index.json").read_text(encoding="utf-8"))

    @property
    def num_bytes(self) -> int:
        return sum(len(text.encode()) for text in self._texts.values())


def oracle_text(setup: MethodSetup, gold: Mapping[str, Sequence[str]], config: RagConfig) -> RagMethod:
    """RAG whose retriever is always right: the reader is tuned on the gold clause alone."""
    return RagMethod(setup, config, "oracle_text", GoldRetriever(gold))
