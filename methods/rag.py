"""RAG: clauses in Chroma, the nearest in the prompt, and a reader that was tuned to use them.

An untuned reader of this size is a straw man, so the reader is LoRA-tuned on open-book conversations with
distractors, sometimes with the gold clause missing (RAFT; Zhang et al. 2024, arXiv:2403.10131).
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from methods.answering import answer_from, prompts_for
from methods.backbone import PACKAGED_ENCODER, Backbone, load_encoder
from methods.base import Answer, Context, FitReport, Lookup, MethodError, WriteReport
from methods.batches import length_grouped
from methods.chat import encode_pieces, encode_prompt, encode_text
from methods.decode import Clock, Drafter, generate, quoting
from methods.samples import Sample, conversation_sample
from methods.setup import MethodSetup
from methods.sft import sft_sample
from methods.template import whole_characters
from methods.train import merge_adapters, train_lora
from tasks.base import NO_CLAUSE, Conversation, Memory, Message
from tasks.chinese import split_characters
from tasks.examples import (
    Example,
    clause_examples,
    drawn,
    general,
    in_turn,
    put,
    reading_examples,
    titled,
    unanswerable_examples,
)
from tasks.files import write_whole

ASKED = 2.0  # questions an epoch, as a multiple of the number of memories
ELLIPTIC_WORDS = 8  # (of Chinese, characters) a question this short is embedded with the user's question before it
GOLD_MISSING = 0.08  # share of training questions whose clause is left out: the answer is to abstain
ALONE = 0.15  # share of prompts without distractors: what the control arm oracle_text shows
NEIGHBOURS, CANDIDATES = 64, 200  # of the index: edges of a clause, and clauses looked at on the way
MISSING = "questions whose clause is not among the passages"


@dataclass(frozen=True)
class RagConfig:
    """Retrieval and reader."""

    encoder: str = PACKAGED_ENCODER
    top_k: int = 3


@dataclass(frozen=True)
class Passage:
    memory_id: str
    text: str
    score: float  # cosine


class Retriever(Protocol):
    """Finds passages for conversations."""

    def upsert(self, memories: Sequence[Memory]) -> None: ...

    def delete(self, ids: Sequence[str]) -> None: ...

    def retrieve(
        self, conversations: Sequence[Sequence[Message]], top_k: int
    ) -> tuple[list[list[Passage]], dict[str, float]]:
        """Passages of each conversation, best first, and the seconds of each stage."""

    def query_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that an encoder reads to look this conversation up."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...

    @property
    def num_bytes(self) -> int: ...

    @property
    def encoder_model(self) -> Any:
        """The transformer in that encoder; None where there is none."""


class ChromaRetriever:
    """A Chroma collection with unit embeddings from a sentence encoder; nothing is downloaded.

    Searched by inner product, which is their cosine: Chroma's own cosine normalises what it takes once more, and a
    saved index that is loaded would differ in the last digit from the one that was saved. Its graph has more
    edges than Chroma's own: with those, 1 build in 50 over 40 like clauses hid the best of them from a question
    (docs/EXPERIMENTS_LOG.md, "Retrieval").
    """

    def __init__(self, folder: Path, encoder: Any) -> None:
        try:
            import chromadb
            from chromadb.config import Settings
        except ModuleNotFoundError as error:
            raise MethodError(
                f"rag: Chroma cannot be used, since {error.name} is not installed; install it, or "
                "leave rag out of run_methods"
            ) from error

        self.encoder = encoder
        self.folder = folder
        client = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
        self._batch = client.get_max_batch_size()
        self.collection: Any = client.get_or_create_collection(
            "clauses",
            embedding_function=None,
            configuration={
                "hnsw": {
                    "space": "ip",
                    "max_neighbors": NEIGHBOURS,
                    "ef_construction": CANDIDATES,
                    "ef_search": CANDIDATES,
                }
            },
        )

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        whole = [whole_characters(text) for text in texts]
        vectors = self.encoder.encode(whole, normalize_embeddings=True, show_progress_bar=False)
        return [[float(x) for x in row] for row in vectors]

    def upsert(self, memories: Sequence[Memory]) -> None:
        self._put([m.id for m in memories], self.embed([titled(m) for m in memories]), [m.text for m in memories])

    def _put(self, ids: list[str], embeddings: list[list[float]], documents: list[str]) -> None:
        """As many at once as Chroma takes."""
        for start in range(0, len(ids), self._batch):
            part = slice(start, start + self._batch)
            self.collection.upsert(ids[part], embeddings[part], documents=documents[part])

    def delete(self, ids: Sequence[str]) -> None:
        known = set(self.collection.get(ids=list(ids))["ids"])
        unknown = [i for i in ids if i not in known]
        if unknown:
            raise MethodError(f"rag: cannot forget {unknown[0]!r}: no clause has that id")
        self.collection.delete(ids=list(ids))

    def query_of(self, messages: Sequence[Message]) -> str:
        """What is embedded: the question, behind the one before it where it is too short to stand alone."""
        asked = [m.content for m in messages if m.role == "user"]
        if len(asked) > 1 and len(split_characters(asked[-1]).split()) <= ELLIPTIC_WORDS:
            return f"{asked[-2]} {asked[-1]}"
        return asked[-1]

    def retrieve(
        self, conversations: Sequence[Sequence[Message]], top_k: int
    ) -> tuple[list[list[Passage]], dict[str, float]]:
        size = self.collection.count()
        if size == 0:
            raise MethodError("rag: the index is empty; fit it on at least one memory first")
        begin = time.perf_counter()
        vectors = self.embed([self.query_of(messages) for messages in conversations])
        embedded = time.perf_counter()
        found = self.collection.query(query_embeddings=vectors, n_results=min(top_k, size))
        searched = time.perf_counter()
        passages = [
            [Passage(i, text, 1.0 - distance) for i, text, distance in zip(*row, strict=True)]
            for row in zip(found["ids"], found["documents"], found["distances"], strict=True)
        ]
        return passages, {"embed": embedded - begin, "search": searched - embedded}

    def query_tokens(self, messages: Sequence[Message]) -> int:
        if not self._is_transformer:  # nothing is read in tokens
            return 0
        query, limit = self.query_of(messages), self.encoder.max_seq_length
        return len(self.encoder.tokenizer(whole_characters(query), truncation=True, max_length=limit).input_ids)

    @property
    def encoder_model(self) -> Any:
        return self.encoder[0].auto_model if self._is_transformer else None

    @property
    def _is_transformer(self) -> bool:
        return isinstance(self.encoder, nn.Sequential)  # as SentenceTransformer is; others may encode too

    def save(self, path: Path) -> None:
        stored = self.collection.get(include=["documents", "embeddings"])
        body = {
            "ids": stored["ids"],
            "documents": stored["documents"],
            "embeddings": [[float(x) for x in row] for row in stored["embeddings"]],
        }
        write_whole(path / "index.json", json.dumps(body, ensure_ascii=False))

    def load(self, path: Path) -> None:
        body = json.loads((path / "index.json").read_text(encoding="utf-8"))
        stale = set(self.collection.get(include=[])["ids"]) - set(body["ids"])
        if stale:  # written after the save
            self.collection.delete(ids=sorted(stale))
        self._put(**body)

    @property
    def num_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())


def open_book(messages: Sequence[Message], passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The messages with the passages set before the last question; without passages, as they are."""
    if not passages:
        return tuple(messages)
    book = "\n".join(f"- {p.text}" for p in passages)
    return (
        *messages[:-1],
        Message("user", f"Handbook clauses:\n{book}\n\nQuestion: {messages[-1].content}"),
    )


def fit_book(
    backbone: Backbone,
    messages: Sequence[Message],
    passages: Sequence[Passage],
    max_prompt_tokens: int,
    order: Callable[[Sequence[Passage]], Sequence[Passage]],
) -> tuple[list[int], list[Passage]]:
    """Prompt ids with the passages in the last message, and the passages that fitted.

    passages: best first; as many from the last one on are left out as it takes. order: puts those that are shown
    in the order of the prompt. The messages are never cut here: `prompts_for` did that, without the passages.
    """

    def opened(count: int) -> list[int]:
        return encode_prompt(backbone, open_book(messages, order(passages[:count])))

    ids, count = opened(len(passages)), len(passages)
    if len(ids) > max_prompt_tokens:
        too_many = bisect_right(range(count), max_prompt_tokens, key=lambda tried: len(opened(tried)))
        count = max(0, too_many - 1)
        ids = opened(count)
    return ids, list(passages[:count])


class RagMethod:
    """`Method` with a retriever and a reader."""

    def __init__(
        self,
        setup: MethodSetup,
        config: RagConfig | None = None,
        name: str = "rag",
        retriever: Retriever | None = None,
        whole_book: bool = False,
        quotes: bool = True,
    ) -> None:
        """whole_book: all that the retriever has is in every prompt, in its order, and nothing is looked up.

        quotes: the think begins with the clause, word for word; False: with what follows from it (`rag_direct`).
        """
        self.config = config or RagConfig()
        self.name = name
        self.setup = setup
        self.backbone = setup.backbone
        self._retriever = retriever
        self.whole_book = whole_book
        self.quotes = quotes
        self.top_k = sys.maxsize if whole_book else self.config.top_k

    @property
    def retriever(self) -> Retriever:
        if self._retriever is None:
            encoder = load_encoder(self.config.encoder, str(self.backbone.device))
            # Anew for each process: one that was killed may leave a database that is not whole
            shutil.rmtree(self.setup.folder / "chroma", ignore_errors=True)
            (self.setup.folder / "chroma").mkdir(parents=True)
            database = Path(
                tempfile.mkdtemp(dir=self.setup.folder / "chroma")
            )  # Chroma keeps a path open for good
            self._retriever = ChromaRetriever(database, encoder)
        return self._retriever

    # fitting

    def _reader_epochs(
        self, memories: Sequence[Memory], sft: Sequence[Conversation]
    ) -> Iterator[list[list[Sample]]]:
        """Open-book conversations: each question with what the retriever really returns, shuffled."""
        backbone, drawing, train = self.backbone, self.setup.examples, self.setup.train
        rng = random.Random(train.seed)
        examples = clause_examples(memories, drawing)
        conversations = general(sft)
        unanswerable, reading = unanswerable_examples(sft), reading_examples(sft)
        if not self.quotes:  # what leads to a clause and no further has nothing behind it
            examples = {key: [e for e in found if e.answer] for key, found in examples.items()}
        nothing = (unanswerable[0].clause, unanswerable[0].answer) if unanswerable else NO_CLAUSE["en"]
        cache: dict[tuple[Message, ...], list[Passage]] = {}

        def look_up(asked: Iterable[tuple[Message, ...]]) -> None:
            new = [messages for messages in dict.fromkeys(asked) if messages not in cache]
            if new:
                cache.update(zip(new, self.retriever.retrieve(new, self.top_k + 1)[0], strict=True))

        def alone() -> bool:
            return not self.whole_book and rng.random() < ALONE

        def opened(example: Example, has_gold: bool) -> Sample:
            """A question with its clause among what is found, or not: then nothing here answers it."""
            if not has_gold:
                example = replace(example, clause=nothing[0], reasoning="", answer=nothing[1])
            found_here = cache[example.messages]
            others = [p for p in found_here if p.memory_id != example.memory_id]
            if alone():
                others = []
            shown = others[: self.top_k]
            if has_gold:
                gold = Passage(example.memory_id, example.clause, 1.0)
                shown = [gold, *others[: self.top_k - 1]]
            rng.shuffle(shown)
            if self.whole_book:  # as at answering; a passage from outside stands anywhere
                place = {p.memory_id: float(i) for i, p in enumerate(found_here)}
                shown.sort(key=lambda p: place.get(p.memory_id, rng.uniform(0, len(place))))
            example = replace(example, messages=open_book(example.messages, shown))
            sample = sft_sample(backbone, example, quotes=self.quotes or not has_gold)
            return sample if has_gold or not example.memory_id else replace(sample, source=MISSING)

        def opened_conversation(conversation: Conversation) -> Sample:
            asked = conversation.messages[:-1]
            passages = [] if alone() else cache[asked][: self.top_k]
            messages = (*open_book(asked, passages), conversation.messages[-1])
            return conversation_sample(backbone, replace(conversation, messages=messages))

        decks: dict[str, list[Example]] = {}
        size = len(memories)
        while True:
            asked: list[tuple[Example, bool]] = []

            def ask(example: Example, asked: list[tuple[Example, bool]] = asked) -> None:
                example = put(example, conversations, drawing, rng)
                asked.append((example, bool(example.memory_id) and rng.random() >= GOLD_MISSING))

            order = [m for m in rng.sample(list(memories), size) if examples[m.id]]
            for i in range(round(size * ASKED) if order else 0):
                ask(in_turn(examples, order[i % len(order)].id, decks, rng))
            for pool, share in ((reading, drawing.reading), (unanswerable, drawing.unanswerable)):
                for example in drawn(pool, round(size * share), rng):
                    ask(example)
            pure = drawn(conversations, round(size * drawing.sft_only), rng)
            look_up([example.messages for example, _ in asked] + [c.messages[:-1] for c in pure])
            samples = [opened(example, has_gold) for example, has_gold in asked]
            samples += [opened_conversation(c) for c in pure]
            yield length_grouped(samples, train.batch_tokens, rng)

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        if not memories:
            raise MethodError(f"{self.name}: the index would be empty; give at least one memory")
        started = time.perf_counter()
        self.setup.progress(f"{self.name} index", 0, len(memories))
        self.retriever.upsert([*memories, *self.setup.indexed])
        index_s = time.perf_counter() - started
        log = train_lora(
            self.backbone,
            self._reader_epochs(memories, sft),
            self.setup.train,
            stage=f"{self.name} reader",
            progress=self.setup.progress,
            adapter_to=self.setup.adapters / "reader",
            checkpoints=self.setup.checkpoint_of("reader"),
        )
        notes = {"index_s": index_s, "reader_s": log.seconds}
        return self.setup.report(started, {"reader": log}, self.retriever.num_bytes, notes)

    # answering

    def _answer(self, ctxs: Sequence[Context], timed: bool) -> list[Answer]:
        clock = Clock(self.backbone.device, enabled=timed)
        found, lookup_s = self.retriever.retrieve([c.messages for c in ctxs], self.top_k)
        clock.took(lookup_s)
        with clock.stage("prompt"):
            _, cuts = prompts_for(self.backbone, ctxs)
            prompts, shown = [], []
            for ctx, cut, passages in zip(ctxs, cuts, found, strict=True):
                ids, fitted = fit_book(
                    self.backbone,
                    ctx.messages[cut:],
                    passages,
                    self.backbone.facts.context_length - ctx.max_new_tokens,
                    order=list if self.whole_book else lambda best_first: best_first[::-1],  # best by the question
                )
                prompts.append(ids)
                shown.append(fitted)
        outputs = generate(
            self.backbone,
            prompts,
            [c.max_new_tokens for c in ctxs],
            drafters=[self._drafter(fitted) for fitted in shown] if self.quotes else None,
            sampling=self.setup.sampling,
            clock=clock,
        )
        answers = []
        for ctx, output, passages, fitted, cut in zip(ctxs, outputs, found, shown, cuts, strict=True):
            lookups = () if self.whole_book else _lookups(fitted, passages)
            answer = answer_from(self.backbone, output, lookups, cut, "weights" if self.whole_book else "retrieve")
            usage = replace(
                answer.usage,
                dropped_passages=len(passages) - len(fitted),
                encoder_tokens=self.retriever.query_tokens(ctx.messages),
            )
            answers.append(replace(answer, usage=usage))
        return answers

    def _drafter(self, passages: Sequence[Passage]) -> Drafter:
        """A tuned reader's think begins with one of the passages, most often the first that was found."""
        tokenizer = self.backbone.tokenizer
        opening = encode_pieces(tokenizer, [self.backbone.ids.think, "\n"])
        texts = [encode_text(tokenizer, passage.text) for passage in passages]
        return quoting(opening, texts, least=2 if self.whole_book else 0)

    def models(self) -> tuple[Any, Any]:
        return self.backbone.model, self.retriever.encoder_model

    def answer(self, ctx: Context) -> Answer:
        return self._answer([ctx], timed=True)[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        return self._answer(ctxs, timed=False)

    # after the fit

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        started = time.perf_counter()
        self.retriever.upsert(memories)
        return WriteReport(time.perf_counter() - started, len(memories), 0, self.retriever.num_bytes)

    def forget(self, ids: Sequence[str]) -> None:
        self.retriever.delete(ids)

    def stored_bytes(self) -> int:
        return self.retriever.num_bytes

    def save(self, path: Path) -> None:
        """The reader's adapter and the indexed clauses; the base weights are not copied."""
        self.setup.copy_adapters(path)
        self.retriever.save(path)

    def load(self, path: Path) -> None:
        """Restores a saved fit onto an untouched backbone of the same model."""
        merge_adapters(self.backbone, [path / "adapters" / "reader"])
        self.load_memories(path)

    def load_memories(self, path: Path) -> None:
        self.retriever.load(path)


def _lookups(shown: Sequence[Passage], found: Sequence[Passage]) -> tuple[Lookup, ...]:
    """One lookup a passage that stands in the prompt; its candidates are all that were found."""
    candidates = tuple((p.memory_id, p.score) for p in found)
    return tuple(Lookup(p.memory_id, p.score, p.text, candidates) for p in shown)
