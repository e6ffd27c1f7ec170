"""Recall: the model emits <recall>, its state picks a memory, whose vectors are fed and decoded."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from methods.answering import answer_from, prompts_for
from methods.base import Answer, Context, FitReport, Lookup, MethodError, WriteReport
from methods.decode import Clock, Generated, generate
from methods.recall.bank import NULL_ID, MemoryBank, check_entries
from methods.recall.embed import check_lengths
from methods.recall.generation import (
    RecallEvent,
    RecallMechanism,
    recalled_text,
    test_memory_recall,
)
from methods.recall.recipe import RecallConfig, StageLogs, spread, train_calibrated
from methods.recall.writing import (
    ValueJob,
    WriteConfig,
    WrittenValue,
    optimise_values,
    plan_starts,
    query_states,
)
from methods.setup import MethodSetup
from methods.train import TAU, merge_adapters
from tasks.base import Conversation, Memory, Message
from tasks.examples import Example, clause_examples, subject_of, unanswerable_examples

log = logging.getLogger(__name__)

TEST_CONTEXT = "What does the handbook say?"  # asked by test_memory_recall
# Conversations in which a memory may be recalled though they are not about it: as in memory_front.
GENERIC: list[tuple[Message, ...]] = [
    (Message("user", text),)
    for text in (TEST_CONTEXT, "Can you help me?", "Please tell me what you know.", "And now?")
]


class RecallMethod:
    """`Method` with a memory bank. The bank is the only state besides the merged weights."""

    # Memory logits are cosine / tau, so that warpers mean what they say
    logit_scale = 1.0 / TAU

    def __init__(
        self,
        setup: MethodSetup,
        config: RecallConfig | None = None,
        name: str = "recall",
        choose: Callable[[Context, MemoryBank], Sequence[int]] | None = None,
    ) -> None:
        """choose: for the control arms, bank indices for a question's recalls in place of the memory head."""
        self.name = name
        self._choose = choose
        self.setup = setup
        self.backbone = setup.backbone
        self.config = config or RecallConfig()
        self.recall = self.config.recall  # how memories are chosen, here and in an export
        self.bank: MemoryBank | None = None

    # fitting

    def _train(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> StageLogs:
        """Makes the bank, trains both steps, and sets every key, those of indexed memories too, behind them."""
        self.bank, logs = train_calibrated(self.setup, self.config, memories, sft)
        started = time.perf_counter()
        asked = {memory.id: self._questions(memory) for memory in memories} | {NULL_ID: unanswerable_examples(sft)}
        self.bank.keys_MD = self._keys([asked[memory_id] for memory_id in self.bank.ids])
        if self.setup.indexed:
            self.index(self.setup.indexed)
        logs.notes["keys_s"] = time.perf_counter() - started
        return logs

    def _check(self, memories: Sequence[Memory]) -> None:
        """Raises MethodError for memories that no bank could hold or no answer could recite."""
        check_entries([m.id for m in memories], [m.text for m in memories])
        check_lengths(self.backbone, memories)

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        started = time.perf_counter()
        self._check([*memories, *self.setup.indexed])
        logs = self._train(memories, sft)
        bank = self.fitted_bank()
        notes = {"step1_s": logs.step1.seconds, "step2_s": logs.step2.seconds, **logs.notes}
        if bank.num_vectors:
            notes["verbatim_from_true_vector"] = test_memory_recall(
                self.backbone, bank, TEST_CONTEXT, limit=len(memories)
            )
        return self.setup.report(started, {"step1": logs.step1, "step2": logs.step2}, bank.num_bytes, notes)

    # answering

    def fitted_bank(self) -> MemoryBank:
        """Raises MethodError where nothing was fitted."""
        if self.bank is None:
            raise MethodError(f"{self.name}: nothing was fitted yet; call fit or load first")
        return self.bank

    def _answer(self, ctxs: Sequence[Context], timed: bool) -> list[Answer]:
        clock = Clock(self.backbone.device, enabled=timed)
        bank = self.fitted_bank()
        forced = None if self._choose is None else [self._choose(ctx, bank) for ctx in ctxs]
        mechanism = RecallMechanism(bank, self.backbone, self.recall, self.logit_scale, forced)
        with clock.stage("prompt"):
            prompts, cuts = prompts_for(self.backbone, ctxs)
        outputs = generate(
            self.backbone,
            prompts,
            [c.max_new_tokens for c in ctxs],
            mechanism=mechanism,
            sampling=self.setup.sampling,
            clock=clock,
        )
        return [
            answer_from(
                self.backbone,
                out,
                self._lookups(out, events),
                cut,
                "recall",
                searched_vectors=len(events) * len(bank),
            )
            for out, events, cut in zip(outputs, mechanism.events, cuts, strict=True)
        ]

    def _lookups(self, output: Generated, events: Sequence[RecallEvent]) -> tuple[Lookup, ...]:
        """Each recall with the text that stands behind it."""
        ids, texts = self.fitted_bank().ids, recalled_text(self.backbone, output.token_ids)
        return tuple(
            Lookup(ids[e.memory_index], e.score, text, tuple((ids[i], score) for i, score in e.candidates))
            for e, text in zip(events, texts, strict=False)  # a <recall> that ends the answer finds nothing
        )

    def models(self) -> tuple[Any, Any]:
        return self.backbone.model, None

    def answer(self, ctx: Context) -> Answer:
        return self._answer([ctx], timed=True)[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        return self._answer(ctxs, timed=False)

    def enable_recall(self, enabled: bool) -> None:
        """Off: the bank is never looked into, and the weights answer alone. On: as it was configured."""
        self.recall = replace(self.recall, enabled=enabled and self.config.recall.enabled)

    # after the fit

    def index(self, memories: Sequence[Memory]) -> WriteReport:
        """Adds memories that are found but not made decodable: values stay where they start."""
        return self._write(memories, WriteConfig(max_steps=0))

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        """Adds or replaces memories with every weight frozen (see `methods.recall.writing`).

        Keys come from the memories' own questions. A value starts at the nearest memory's, where one is near
        (a new version of a clause, a sibling), else at its own key. Keys and values of all others stay.
        The report says which memories are decoded word for word; one that is not is kept, with a warning. Where
        a memory has no vectors, the key is all there is to write.
        """
        return self._write(memories, self.config.write)

    def _write(self, memories: Sequence[Memory], options: WriteConfig) -> WriteReport:
        started = time.perf_counter()
        bank = self.fitted_bank()
        self._check(memories)
        asked = [self._questions(m) for m in memories]
        keys_ND = self._new_keys(memories, asked)
        fed = self._start_values(keys_ND)
        written: dict[str, WrittenValue] = {}
        if options.max_steps and bank.num_vectors:
            written = self._optimise(memories, keys_ND, asked, options)
            fed = [written[m.id].fed_PD for m in memories]
        bank.write([m.id for m in memories], [m.text for m in memories], keys_ND, fed)
        return WriteReport(
            seconds=time.perf_counter() - started,
            num_memories=len(memories),
            trained_tokens=sum(w.forward_tokens for w in written.values()),
            bytes_stored=bank.num_bytes,
            exact=tuple(memory_id for memory_id, w in written.items() if w.exact),
            inexact=tuple(memory_id for memory_id, w in written.items() if not w.exact),
            steps={memory_id: w.steps for memory_id, w in written.items()},
        )

    def _new_keys(self, memories: Sequence[Memory], asked: Sequence[Sequence[Example]]) -> torch.Tensor:
        """Keys (N, D) of memories that come after the training. asked: the questions of each."""
        return self._keys(asked)

    def _keys(self, asked: Sequence[Sequence[Example]]) -> torch.Tensor:
        """(N, D): the mean of the unit states that a memory's questions have at <recall>.

        A class by its prototype (Snell et al. 2017, arXiv:1703.05175). While weights and keys train together the
        keys lag behind, and keys optimised on so few states miss other wordings (docs/EXPERIMENTS.md).
        """
        conversations = [example.messages for own in asked for example in own]
        states_QD = query_states(self.backbone, conversations, functools.partial(self.setup.progress, "keys"))
        parts = states_QD.split([len(own) for own in asked])
        return torch.stack([own_QD.mean(dim=0) for own_QD in parts])

    def _start_values(self, keys_ND: torch.Tensor) -> list[torch.Tensor]:
        """(P, D) that new memories are fed as where nothing is optimised: as many as fitted ones, untrained."""
        bank = self.fitted_bank()
        if bank.num_vectors == 1:
            return list(keys_ND[:, None] * bank.gain)
        return list(spread(keys_ND, bank.num_vectors, self.setup.train.seed) * bank.gain)

    def _optimise(
        self,
        memories: Sequence[Memory],
        keys_ND: torch.Tensor,
        asked: Sequence[Sequence[Example]],
        options: WriteConfig,
    ) -> dict[str, WrittenValue]:
        """Each memory's value by its id; a warning names each that is not decoded word for word."""
        bank = self.fitted_bank()
        jobs = [
            ValueJob(memory, [*own, *(Example(messages, memory.id, memory.text) for messages in GENERIC)], start)
            for memory, own, start in zip(memories, asked, plan_starts(bank, keys_ND), strict=True)
        ]
        values = optimise_values(
            self.backbone,
            jobs,
            options.max_steps,
            bank.gain,
            seed=self.setup.train.seed,
            progress=functools.partial(self.setup.progress, "writing"),
        )
        for memory, value in zip(memories, values, strict=True):
            if not value.exact:
                log.warning(
                    "%s: memory %r is not decoded word for word after %d steps; raise write.max_steps, or write "
                    "its text in shorter memories",
                    self.name,
                    memory.id,
                    value.steps,
                )
        return {memory.id: value for memory, value in zip(memories, values, strict=True)}

    def _questions(self, memory: Memory) -> list[Example]:
        """Conversations that ask for this memory: its cues, questions made from its text, its title."""
        asked = Message("user", f"What is the rule on: {subject_of(memory)}?")
        by_title = Example((asked,), memory.id, memory.text)
        return [*clause_examples([memory], self.setup.examples)[memory.id], by_title]

    def forget(self, ids: Sequence[str]) -> None:
        self.fitted_bank().forget(ids)

    def stored_bytes(self) -> int:
        return self.fitted_bank().num_bytes

    def save(self, path: Path) -> None:
        """The adapters of both steps and the bank; the base weights are not copied."""
        self.setup.copy_adapters(path)
        self.fitted_bank().save(path / "bank")

    def load(self, path: Path) -> None:
        """Restores a saved fit onto an untouched backbone of the same model."""
        self.load_memories(path)
        merge_adapters(self.backbone, [path / "adapters" / step for step in ("step1", "step2")])

    def load_memories(self, path: Path) -> None:
        self.bank = MemoryBank.load(path / "bank", self.backbone.fingerprint, self.backbone.device)
