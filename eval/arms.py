"""Control arms that bound the table. `run_methods` or `evaluation=full` name them.

none            the same SFT corpus and no memories: what the model knows or guesses
full_context    every clause in every prompt, in the handbook's order, with a reader tuned for it; the last
                ones are left out where a long history leaves no room for them
oracle_text     the gold clause alone in the prompt: what RAG could do with perfect retrieval
oracle_vector   recall with the gold clause's vector forced: what recall could do with perfect retrieval
random_vector   recall with another clause's vector forced: what the injected vector itself decides

Where the method that an arm bounds runs beside it, the arm borrows that method's fit (`borrows_from`), so that
the two differ in the lookup alone; else it fits its own, on the same budget. They are instruments of measuring and
no methods: some are told which clause is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from methods.backbone import Backbone
from methods.base import Context, FitReport, Method, MethodError
from methods.chat import encode_prompt
from methods.rag import Passage, RagMethod, open_book
from methods.recall.bank import NULL_ID, MemoryBank
from methods.recall.method import RecallMethod
from methods.registry import METHODS, settings_of
from methods.setup import MethodSetup
from methods.sft import SftMethod
from tasks.base import Conversation, Memory, Message
from tasks.examples import general
from tasks.files import write_whole

ARMS = ("none", "full_context", "oracle_text", "oracle_vector", "random_vector")
NAMES = (*METHODS, *ARMS)  # all that a run can name
LENDERS = {"oracle_text": "rag", "oracle_vector": "recall", "random_vector": "recall"}
CONFIGURED_AS = LENDERS | {"full_context": "rag"}  # name -> the method whose settings it takes
ROOM_TOKENS = 512  # kept free beside the clauses, for the system prompt, the question and the answer

Gold = Mapping[str, Sequence[str]]  # gold_key -> clause ids


def borrows_from(name: str, names: Sequence[str]) -> str:
    """The method whose fit the method `name` answers with when `names` run together; its own name: its own fit."""
    lender = LENDERS.get(name, name)
    return lender if lender in names else name


def gold_key(messages: Sequence[Message]) -> str:
    """What the user said so far: elliptic questions rest on what was asked before them."""
    return "\n".join(message.content for message in messages if message.role == "user")


def _gold_of(gold: Gold, messages: Sequence[Message]) -> Sequence[str]:
    """Clause ids by the dialogue so far, else by the question alone; () where no clause is known to answer."""
    return gold.get(gold_key(messages), gold.get(messages[-1].content, ()))


def build_arm(name: str, setup: MethodSetup, configs: Mapping[str, Any], gold: Gold) -> Method:
    """configs: method name -> its config object."""
    config = settings_of(CONFIGURED_AS.get(name, name), configs)
    if name == "none":
        return _WithoutMemories(setup, name)
    if name == "full_context":
        return RagMethod(setup, config, name, _Handbook(setup.backbone), whole_book=True)
    if name == "oracle_text":  # with a fit of its own, the reader is tuned on the gold clause alone
        return RagMethod(setup, config, name, gold_retriever(gold))
    choose = gold_vectors(gold) if name == "oracle_vector" else wrong_vectors(gold, setup.train.seed)
    return RecallMethod(setup, config, name, choose)


class _WithoutMemories(SftMethod):
    """The general corpus alone: same budget, same format."""

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        return super().fit((), general(sft))


def borrow(arm: Method, lender: Method, path: Path) -> None:
    """The arm answers with the lender's weights, on the memories that it saved under `path`."""
    assert isinstance(arm, RecallMethod | RagMethod)
    assert isinstance(lender, RecallMethod | RagMethod)
    arm.backbone = lender.backbone
    arm.load_memories(path)


# --- texts --------------------------------------------------------------------------------------


class TextRetriever:
    """A `Retriever` that goes by a rule: `pick` names the ids to show, of the texts at hand."""

    def __init__(self, pick: Callable[[Sequence[Message], Mapping[str, str]], Sequence[str]]) -> None:
        self._pick = pick
        self._texts: dict[str, str] = {}  # in the handbook's order

    def upsert(self, memories: Sequence[Memory]) -> None:
        self._texts.update({m.id: m.text for m in memories})

    def delete(self, ids: Sequence[str]) -> None:
        unknown = [i for i in ids if i not in self._texts]
        if unknown:
            raise MethodError(f"cannot forget {unknown[0]!r}: no clause has that id")
        for memory_id in ids:
            del self._texts[memory_id]

    def retrieve(
        self, conversations: Sequence[Sequence[Message]], top_k: int
    ) -> tuple[list[list[Passage]], dict[str, float]]:
        picked = [self._pick(messages, self._texts) for messages in conversations]
        return [[Passage(i, self._texts[i], 1.0) for i in row if i in self._texts] for row in picked], {}

    def query_tokens(self, messages: Sequence[Message]) -> int:
        return 0

    def save(self, path: Path) -> None:
        body = {"ids": list(self._texts), "documents": list(self._texts.values())}
        write_whole(path / "index.json", json.dumps(body, ensure_ascii=False))

    def load(self, path: Path) -> None:
        """Reads its own index or Chroma's, which holds the same and embeddings."""
        body = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self._texts = dict(zip(body["ids"], body["documents"], strict=True))

    @property
    def num_bytes(self) -> int:
        return sum(len(text.encode()) for text in self._texts.values())

    @property
    def encoder_model(self) -> None:
        return None


def gold_retriever(gold: Gold) -> TextRetriever:
    """Knows each question's clauses. Training questions find their own clause through their cue."""
    return TextRetriever(lambda messages, _texts: _gold_of(gold, messages))


def check_window(backbone: Backbone, memories: Sequence[Memory]) -> None:
    """Raises MethodError where a prompt with every clause leaves no room for a question and its answer."""
    book = open_book([Message("user", "")], [Passage(m.id, m.text, 1.0) for m in memories])
    tokens = len(encode_prompt(backbone, book))
    if tokens + ROOM_TOKENS > backbone.facts.context_length:
        raise MethodError(
            f"full_context: {len(memories)} clauses make a prompt of {tokens} tokens and {ROOM_TOKENS} are kept "
            f"for question and answer, but {backbone.name} reads {backbone.facts.context_length}; take fewer "
            "clauses (task.num_clauses=...) or a model with a longer context, or leave full_context out"
        )


class _Handbook(TextRetriever):
    """All texts for every question, as long as they fit the context window."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(lambda _messages, texts: list(texts))
        self._backbone = backbone

    def upsert(self, memories: Sequence[Memory]) -> None:
        texts = self._texts | {m.id: m.text for m in memories}
        check_window(self._backbone, [Memory(memory_id, text) for memory_id, text in texts.items()])
        super().upsert(memories)


# --- vectors ------------------------------------------------------------------------------------


Choose = Callable[[Context, MemoryBank], list[int]]


def gold_vectors(gold: Gold) -> Choose:
    """The n-th recall gets the question's n-th gold vector; without a gold clause, the null memory.

    Whether it recalls at all stays the model's choice.
    """

    def choose(ctx: Context, bank: MemoryBank) -> list[int]:
        ids = [i for i in _gold_of(gold, ctx.messages) if i in bank] or [NULL_ID]
        return [bank.index(memory_id) for memory_id in ids]

    return choose


def wrong_vectors(gold: Gold, seed: int) -> Choose:
    """The vector of a clause that does not answer the question, drawn by seed and dialogue."""

    def choose(ctx: Context, bank: MemoryBank) -> list[int]:
        right = {NULL_ID, *_gold_of(gold, ctx.messages)}
        wrong = [row for row, memory_id in enumerate(bank.ids) if memory_id not in right]
        rng = random.Random(f"random vector/{seed}/{gold_key(ctx.messages)}")
        return [rng.choice(wrong) if wrong else bank.index(NULL_ID)]

    return choose
