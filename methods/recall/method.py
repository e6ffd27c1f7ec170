"""Recall: the model emits <recall>, its state picks a memory vector, the vector is fed and decoded."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from methods.answering import answer_from, prompts_for
from methods.backbone import Backbone, load_backbone, load_encoder
from methods.base import Answer, Context, FitReport, Lookup, Method, MethodError, WriteReport
from methods.decode import Clock, Generated, generate
from methods.examples import (
    NULL_TEXT,
    Example,
    clause_examples,
    general,
    reading_examples,
    titled,
    unanswerable_examples,
)
from methods.recall.bank import NULL_ID, MemoryBank, check_entries, check_vectors
from methods.recall.calibrated import CalibratedDataset, MixtureConfig
from methods.recall.embed import _batch_extract_embeddings, check_lengths, key_parts
from methods.recall.export import export_model
from methods.recall.generation import AutoregressiveRecall, RecallEvent, RecallInterceptor
from methods.recall.stage1 import query_epochs, train_recall_token, twins_of
from methods.recall.stage2 import test_memory_recall, train_memory_decoding
from methods.recall.teacher import agreed, encoder_cosines, near_duplicates, with_row
from methods.recall.writing import (
    ValueJob,
    WriteConfig,
    WrittenValue,
    fit_keys,
    optimise_values,
    plan_starts,
    query_states,
)
from methods.setup import MethodSetup
from methods.shapes import Shapes, shape_of
from methods.train import QUERY_VALUE, LoraTrainConfig, Teacher, TrainLog, merge_adapters
from tasks.base import Conversation, Memory, Message

log = logging.getLogger(__name__)

# Conversations in which a memory may be recalled though they are not about it: as in memory_front.
GENERIC: list[tuple[Message, ...]] = [
    (Message("user", text),)
    for text in ("What does the handbook say?", "Can you help me?", "Please tell me what you know.", "And now?")
]


@dataclass(frozen=True)
class StageLogs:
    """What a recipe's two steps left behind."""

    step1: TrainLog
    step2: TrainLog
    notes: dict[str, float] = field(default_factory=dict)
    write_tokens: int = 0  # forward tokens of writing, where the fit writes


@dataclass(frozen=True)
class RecallConfig:
    """The calibrated recipe."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    recall: AutoregressiveRecall = field(default_factory=AutoregressiveRecall)
    step1_share: float = 0.2  # of the token budget
    # Of the contrastive loss, kept on in Step 2. At 1 its gradient is several times that of the token losses, and
    # fewer clauses are recited word for word (docs/EXPERIMENTS.md)
    step2_retrieval_weight: float = 0.1
    # Retrieval learnt from the sentence encoder's ranking (methods.recall.teacher); encoder: methods.rag.encoder
    distil_weight: float = 0.5  # w: cross-entropy with its ranking, 1 - w: with the gold memory; 0: no teacher
    distil_temperature: float = 0.05  # its ranking is softmax(cosine / temperature)
    # Memories whose texts have a cosine above this by the encoder (1: a text with itself) are no negatives for
    # each other (methods.recall.teacher.near_duplicates); 0: all are, as telling near misses apart is the task
    negative_margin: float = 0.0
    centre: bool = True  # subtract the mean memory vector before normalising
    # Set behind a text before its last token's state is taken (PromptEOL; Jiang et al. 2023, arXiv:2307.16645)
    summary_prompt: str = ' This sentence means in one word: "'
    # Keys of a memory: its whole text's, then its sentences'; the memory head takes the best (methods.recall.bank)
    keys_per_memory: int = 1
    train_keys: bool = True  # keys start at their texts' vectors and learn in both steps
    train_values: bool = True  # injected vectors learn in Step 2, untied from their keys
    tie_values: bool = False  # key and injected vector of the fit are one, which learns for both in both steps
    value_spread: float = 1.0  # random part of a value's start: near-miss clauses' own vectors are too near
    vectors_per_memory: int = 8  # P: injected one after another, each under a pad of its own
    gain: float = 1.0  # injected norm, in mean token-embedding norms
    test_context: str = "What does the handbook say?"  # asked by test_memory_recall
    write: WriteConfig = field(default_factory=WriteConfig)  # writing after the fit, weights frozen

    def __post_init__(self) -> None:
        if not 0.0 <= self.distil_weight <= 1.0:
            raise MethodError(f"distil_weight={self.distil_weight} is not a share; choose from 0 to 1")
        if self.distil_temperature <= 0.0:
            raise MethodError(f"distil_temperature={self.distil_temperature} divides cosines; choose one above 0")
        if not 0.0 <= self.negative_margin < 1.0:
            raise MethodError(
                f"negative_margin={self.negative_margin} is not a cosine between two texts; choose from 0, which "
                "leaves no negative out, to below 1"
            )
        if self.tie_values and not (
            self.keys_per_memory == self.vectors_per_memory == 1 and self.train_keys == self.train_values
        ):
            raise MethodError(
                "tie_values=true makes one vector of a memory's key and value; choose keys_per_memory=1, "
                "vectors_per_memory=1, and train_keys and train_values alike"
            )
        if self.vectors_per_memory < 1:
            raise MethodError(
                f"vectors_per_memory={self.vectors_per_memory}: nothing could be fed; choose 1 or more"
            )
        if self.keys_per_memory < 1 or self.keys_per_memory == 2:
            raise MethodError(
                f"keys_per_memory={self.keys_per_memory}: choose 1, the whole text's, or at least 3, with those "
                "of two or more of its sentences"
            )


@dataclass(frozen=True)
class SilentRecallConfig(RecallConfig):
    """`recall_silent`: the calibrated recipe without recitation.

    Reading passages are left out of Step 2: their vectors are not decodable, so nothing could be read from
    them in silence. Texts are decoded in memory_front alone, hence more of it.
    """

    mixture: MixtureConfig = field(
        default_factory=lambda: MixtureConfig(silent=True, reading=0.0, memory_front=1.25)
    )
    write: WriteConfig = field(default_factory=lambda: WriteConfig(read_targets=False))  # no text is read from


class RecallMethod:
    """`Method` with a memory bank. The bank is the only state besides the merged weights."""

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
        self._recall_enabled = True
        self.setup = setup
        self.backbone = setup.backbone
        self.config = config or RecallConfig()
        self.recall = self.config.recall
        self.test_context = self.config.test_context
        self.write_config = self.config.write
        self.bank: MemoryBank | None = None

    # fitting

    def _make_bank(self, memories: Sequence[Memory], passages: Sequence[Memory]) -> MemoryBank:
        """Vectors of all memories, the null memory and training passages, from the untouched base model."""
        entries = [Memory(NULL_ID, NULL_TEXT), *memories, *passages]
        num_keys = self.config.keys_per_memory
        raw_NKD = self._extract_keys(self.backbone, entries, num_keys)
        for memory, raw_KD in zip(entries, raw_NKD, strict=True):  # one NaN in the centre would be in every vector
            check_vectors(memory.id, raw_KD)
        raw_ND = raw_NKD[:, 0]
        center_D = raw_ND.mean(dim=0) if self.config.centre else torch.zeros_like(raw_ND[0])
        gain = self.config.gain * self.backbone.embedding_norm
        bank = MemoryBank(center_D, gain, self.backbone.fingerprint, num_keys)
        keys_NKD = bank.normalise(raw_NKD)
        bank.write([m.id for m in entries], [m.text for m in entries], keys_NKD, keys_NKD[:, 0])
        if not self.config.tie_values:
            bank.take_values(self._spread(keys_NKD[:, 0], self.config.vectors_per_memory))
        return bank

    def _extract_keys(self, backbone: Backbone, memories: Sequence[Memory], num_keys: int) -> torch.Tensor:
        """Raw vectors (N, K, D) of each memory's text and parts (R in all); for a missing part the text's again.

        A vector that stands twice changes nothing: the memory head takes the best.
        """
        parts = [key_parts(memory, num_keys) for memory in memories]
        raw_RD = self._extract(backbone, [part for found in parts for part in found])
        rows: list[list[int]] = []
        start = 0
        for found in parts:
            rows.append([start + k if k < len(found) else start for k in range(num_keys)])
            start += len(found)
        return raw_RD[torch.tensor(rows, device=raw_RD.device)]

    def _spread(self, keys_ND: torch.Tensor, num_vectors: int) -> torch.Tensor:
        """(N, P, D) unit values that near-miss clauses do not share: the keys plus seeded random directions."""
        values_NPD = keys_ND[:, None].expand(-1, num_vectors, -1)
        if not self.config.value_spread:
            return values_NPD
        generator = torch.Generator().manual_seed(self.setup.train.seed)
        noise_NPD = F.normalize(torch.randn(values_NPD.shape, generator=generator), dim=-1).to(keys_ND)
        return F.normalize(values_NPD + self.config.value_spread * noise_NPD, dim=-1)

    def _extract(self, backbone: Backbone, memories: Sequence[Memory]) -> torch.Tensor:
        """Raw vectors (N, D) of titled texts under the summary prompt."""
        return _batch_extract_embeddings(
            backbone, [titled(m) for m in memories], suffix=self.config.summary_prompt
        )

    def _check(self, memories: Sequence[Memory]) -> None:
        """Raises MethodError for memories that no bank could hold or no answer could recite."""
        check_entries([m.id for m in memories], [m.text for m in memories])
        check_lengths(self.backbone, memories)

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        started = time.perf_counter()
        self._check(memories)
        logs = self._train(memories, sft)
        bank = self._bank()
        verbatim = test_memory_recall(self.backbone, bank, self.test_context)
        curves = {f"step1/{k}": tuple(v) for k, v in logs.step1.losses.items()}
        curves |= {f"step2/{k}": tuple(v) for k, v in logs.step2.losses.items()}
        return FitReport(
            seconds=time.perf_counter() - started,
            forward_tokens=logs.step1.forward_tokens + logs.step2.forward_tokens + logs.write_tokens,
            optimizer_steps=logs.step1.optimizer_steps + logs.step2.optimizer_steps,
            bytes_stored=self.setup.adapter_bytes + bank.num_bytes,
            index_bytes=bank.num_bytes,
            curves=curves,
            notes={
                "step1_s": logs.step1.seconds,
                "step2_s": logs.step2.seconds,
                "verbatim_from_true_vector": verbatim,
                **logs.notes,
            },
        )

    def _budgets(self, step1_share: float) -> tuple[LoraTrainConfig, LoraTrainConfig]:
        """The token budget of both steps. Step 1 trains Q and V only (specification 4.2), never averaged."""
        train = self.setup.train
        tokens = round(train.max_tokens * step1_share)
        return (
            replace(train, target_modules=QUERY_VALUE, max_tokens=tokens, average_from=1.0),
            replace(train, max_tokens=train.max_tokens - tokens),
        )

    def _encoder(self) -> Any:
        """RAG's sentence encoder."""
        return load_encoder(self.setup.encoder, str(self.backbone.device))

    def _bank_texts(self, memories: Sequence[Memory]) -> list[str | None]:
        """What the encoder reads of each row of the bank; None for the null memory."""
        texts = {m.id: titled(m) for m in memories}
        return [texts.get(memory_id) for memory_id in self._bank().ids]

    def _teacher(self, questions: Sequence[str], memories: Sequence[Memory]) -> Teacher:
        """The sentence encoder's ranking of the bank for each question; each text goes through it once."""
        config = self.config
        self.setup.progress(f"{self.name} teacher", 0, len(questions))
        cosines_QM = encoder_cosines(self._encoder(), questions, self._bank_texts(memories))
        device = self._bank().keys_MKD.device
        return Teacher((cosines_QM / config.distil_temperature).to(device), config.distil_weight)

    def _no_negatives(self, memories: Sequence[Memory]) -> torch.Tensor:
        """(M, M): rows of the bank that are no negatives for each other: twins, near duplicates where asked."""
        twins_MM = twins_of(self._bank())
        if not self.config.negative_margin:
            return twins_MM
        near_MM = near_duplicates(self._encoder(), self._bank_texts(memories), self.config.negative_margin)
        return twins_MM | near_MM.to(twins_MM.device)

    def _train(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> StageLogs:
        """Makes the bank and trains both steps of the recipe."""
        config, setup = self.config, self.setup
        examples = clause_examples(memories, setup.examples)
        conversations = general(sft)
        unanswerable, reading = unanswerable_examples(sft), reading_examples(sft)
        passages = {e.memory_id: Memory(e.memory_id, e.clause) for e in reading}
        bank = self.bank = self._make_bank(memories, list(passages.values()))
        step1, step2 = self._budgets(config.step1_share)
        step2 = replace(step2, retrieval_weight=step2.retrieval_weight * config.step2_retrieval_weight)
        twins_MM = self._no_negatives([*memories, *passages.values()])
        teacher: Teacher | None = None
        notes: dict[str, float] = {}
        if config.distil_weight:
            rows: dict[str, int] = {}  # of each distinct question; the null memory's have none: it has no rank
            examples = {key: [with_row(e, rows) for e in found] for key, found in examples.items()}
            reading = [with_row(e, rows) for e in reading]
            teacher = self._teacher(list(rows), [*memories, *passages.values()])
            examples = {k: [agreed(e, teacher, bank, twins_MM) for e in found] for k, found in examples.items()}
            reading = [agreed(e, teacher, bank, twins_MM) for e in reading]
            right = [e.teacher_row >= 0 for found in examples.values() for e in found]
            notes["teacher_hit_at_1"] = sum(right) / max(1, len(right))
        dataset = CalibratedDataset(
            self.backbone,
            bank,
            memories,
            examples,
            unanswerable,
            reading,
            conversations,
            config.mixture,
            setup.examples,
            step2.batch_tokens,
            step2.seed,
        )
        dataset.check()
        queries = query_epochs(
            self.backbone,
            bank,
            examples,
            unanswerable,
            reading,
            conversations,
            setup.examples,
            step1.batch_tokens,
            step1.seed,
        )
        log1 = train_recall_token(
            self.backbone,
            bank,
            queries,
            step1,
            setup.progress,
            setup.adapters / "step1",
            config.train_keys,
            teacher,
            tied=config.tie_values,
            twins_MM=twins_MM,
        )
        log2 = train_memory_decoding(
            self.backbone,
            bank,
            dataset.epochs(),
            step2,
            setup.progress,
            setup.adapters / "step2",
            config.train_keys,
            config.train_values,
            teacher=teacher,
            tied=config.tie_values,
            twins_MM=twins_MM,
        )
        bank.forget(list(passages))  # they were there to train on
        return StageLogs(log1, log2, notes)

    # answering

    def _bank(self) -> MemoryBank:
        if self.bank is None:
            raise MethodError(f"{self.name}: nothing was fitted yet; call fit or load first")
        return self.bank

    def _answer(self, ctxs: Sequence[Context], timed: bool) -> list[Answer]:
        clock = Clock(self.backbone.device, enabled=timed)
        bank, recall = self._bank(), self._settings
        forced = None if self._choose is None else [self._choose(ctx, bank) for ctx in ctxs]
        interceptor = RecallInterceptor(bank, self.backbone.ids, recall, forced)
        with clock.stage("prompt"):
            prompts, cuts = prompts_for(self.backbone, ctxs)
        outputs = generate(
            self.backbone,
            prompts,
            [c.max_new_tokens for c in ctxs],
            interceptor=interceptor,
            sampling=self.setup.sampling,
            clock=clock,
            token_bias={self.backbone.ids.recall: recall.recall_bias} if recall.biased else None,
        )
        return [
            answer_from(
                self.backbone,
                out,
                self._lookups(out, events),
                cut,
                searched_vectors=len(events) * len(bank) * bank.num_keys,
            )
            for out, events, cut in zip(outputs, interceptor.events, cuts, strict=True)
        ]

    @property
    def _settings(self) -> AutoregressiveRecall:
        """How memories are chosen, here and in an export."""
        return replace(
            self.recall,
            logit_scale=self.recall.logit_scale or self._logit_scale,
            enabled=self.recall.enabled and self._recall_enabled,
        )

    @property
    def _logit_scale(self) -> float:
        """Where no setting says otherwise, memory logits are cosine / tau with the training tau, so that warpers
        mean what they say."""
        return 1.0 / self.setup.train.retrieval_temperature

    def _lookups(self, output: Generated, events: Sequence[RecallEvent]) -> tuple[Lookup, ...]:
        """Each recall with the text that was decoded from it."""
        bank, ids = self._bank(), self.backbone.ids
        texts: list[str] = []
        tokens = list(output.token_ids)
        for start, token in enumerate(tokens):
            if token == ids.memory_pad and tokens[max(0, start - 1)] == ids.recall:
                rest = [t for t in tokens[start + 1 :] if t != ids.memory_pad]  # a memory may take several pads
                stops = [i for i, t in enumerate(rest) if t in (ids.recall_end, ids.think_end, ids.eos)]
                texts.append(self.backbone.tokenizer.decode(rest[: stops[0]] if stops else rest).strip())
        return tuple(
            Lookup(
                memory_id=bank.ids[event.memory_index],
                score=event.score,
                text=text,
                candidates=tuple((bank.ids[i], score) for i, score in event.candidates),
            )
            for event, text in zip(events, texts, strict=False)  # events beyond the row's own cap have no text
        )

    def shapes(self) -> Shapes:
        return Shapes(shape_of(self.backbone.model))

    def answer(self, ctx: Context) -> Answer:
        return self._answer([ctx], timed=True)[0]

    def answer_batch(self, ctxs: Sequence[Context]) -> list[Answer]:
        return self._answer(ctxs, timed=False)

    def enable_recall(self, enabled: bool) -> None:
        """Off: the bank is never looked into, and the weights answer alone."""
        self._recall_enabled = enabled

    # after the fit

    def _start_values(self, keys_ND: torch.Tensor) -> list[torch.Tensor]:
        """What new memories are fed as where nothing is optimised: as many vectors as fitted ones, untrained."""
        bank = self._bank()
        if bank.num_vectors == 1:
            return list(keys_ND)
        return list(self._spread(keys_ND, bank.num_vectors) * bank.gain)

    def index(self, memories: Sequence[Memory]) -> WriteReport:
        """Adds memories that are found but not made decodable: keys are fitted, values stay where they start."""
        return self._write(memories, replace(self.write_config, max_steps=0))

    def write(self, memories: Sequence[Memory]) -> WriteReport:
        """Adds or replaces memories with every weight frozen (see `methods.recall.writing`).

        Keys come from the untouched base model, as at the fit; it is loaded for the moment. Then they are fitted
        to their own questions. A value starts at the nearest memory's, where one is near (a new version of a
        clause, a sibling), else at its own text's. Keys and values of all other memories stay as they are. The
        report says which memories are decoded word for word; one that is not is kept, with a warning.
        """
        return self._write(memories, self.write_config)

    def _write(self, memories: Sequence[Memory], options: WriteConfig) -> WriteReport:
        started = time.perf_counter()
        bank = self._bank()
        self._check(memories)
        untouched = load_backbone(self.backbone.name, str(self.backbone.device), self.backbone.dtype_name)
        keys_NKD = bank.normalise(self._extract_keys(untouched, memories, bank.num_keys))
        del untouched
        asked = [self._questions(m) for m in memories]
        values = self._start_values(keys_NKD[:, 0])
        written: dict[str, WrittenValue] = {}
        if options.max_steps:
            written = self._optimise(memories, keys_NKD[:, 0], asked, options)
            values = [written[m.id].fed_PD for m in memories]
        if options.query_weight:
            new = {m.id for m in memories}
            stay = [row for row, memory_id in enumerate(bank.ids) if memory_id not in new]
            states = [query_states(self.backbone, [e.messages for e in own]) for own in asked]
            known_MD = bank.keys_MKD[stay].flatten(0, 1)
            fitted_ND = fit_keys(keys_NKD[:, 0], states, known_MD, self.setup.train.retrieval_temperature, options)
            keys_NKD = torch.cat([fitted_ND[:, None], keys_NKD[:, 1:]], dim=1)
        bank.write([m.id for m in memories], [m.text for m in memories], keys_NKD, values)
        return WriteReport(
            seconds=time.perf_counter() - started,
            num_memories=len(memories),
            trained_tokens=sum(w.forward_tokens for w in written.values()),
            bytes_stored=bank.num_bytes,
            exact=tuple(memory_id for memory_id, w in written.items() if w.exact),
            inexact=tuple(memory_id for memory_id, w in written.items() if not w.exact),
            steps={memory_id: w.steps for memory_id, w in written.items()},
        )

    def _optimise(
        self,
        memories: Sequence[Memory],
        keys_ND: torch.Tensor,
        asked: Sequence[Sequence[Example]],
        options: WriteConfig,
    ) -> dict[str, WrittenValue]:
        """Each memory's value by its id; a warning names each that is not decoded word for word."""
        bank = self._bank()
        starts = plan_starts(bank, memories, keys_ND, options.warm_start_cosine)
        jobs = [
            ValueJob(memory, [*own, *(Example(messages, memory.id, memory.text) for messages in GENERIC)], start)
            for memory, own, start in zip(memories, asked, starts, strict=True)
        ]
        values = optimise_values(
            self.backbone,
            jobs,
            options,
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
        subject = memory.title or " ".join(memory.text.split()[:6])
        by_title = Example((Message("user", f"What is the rule on: {subject}?"),), memory.id, memory.text)
        return [*clause_examples([memory], self.setup.examples)[memory.id], by_title]

    def forget(self, ids: Sequence[str]) -> None:
        self._bank().forget(ids)

    def stored_bytes(self) -> int:
        return self._bank().num_bytes

    def save(self, path: Path) -> None:
        """The adapters of both steps and the bank; the base weights are not copied."""
        self.setup.copy_adapters(path)
        self._bank().save(path / "bank")

    def export(self, folder: Path, overwrite: bool = False) -> None:
        """Writes an ordinary model folder with its bank and `custom_generate/generate.py`.

        overwrite: an earlier export may lie there. Raises MethodError for a control arm.
        """
        if self._choose is not None:
            raise MethodError(f"{self.name}: chooses by the gold answers, which no export has; export recall")
        export_model(self.backbone, self._bank(), folder, self._settings, self.setup.sampling, overwrite)

    def load(self, path: Path) -> None:
        """Restores a saved fit onto an untouched backbone of the same model."""
        self.bank = MemoryBank.load(path / "bank", self.backbone.fingerprint, self.backbone.device)
        step1, step2 = path / "adapters" / "step1", path / "adapters" / "step2"
        merge_adapters(self.backbone, [step1, step2] if step1.exists() else [step2])  # an ablation has no Step 1

    def borrow(self, fitted: Method, path: Path) -> None:
        """Answers with the weights of another recall method and the bank that it saved under `path`."""
        if not isinstance(fitted, RecallMethod):
            raise MethodError(f"{self.name} can borrow the fit of a recall method, not of {fitted.name}")
        self.backbone = fitted.backbone
        self.bank = MemoryBank.load(path / "bank", self.backbone.fingerprint, self.backbone.device)
