"""The calibrated recipe: its settings, what the bank starts from, and both steps of training.

Step 1 makes the hidden state of <recall> a good query (specification 4.2): LoRA on Q and V only, the state is
pulled to its memory's key and away from every other: cross-entropy over cosine / tau (InfoNCE; van den Oord et al.
2018, arXiv:1807.03748). No text is decoded, so the output head never runs and a step costs little. Step 2 makes
the memory's vectors decodable and keeps ordinary ability (specification 4.3). `methods.recall.mixture` draws for
both.

Shapes: D hidden, M memories, N texts, P vectors of one memory, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.bank import NULL_ID, MemoryBank, check_vectors
from methods.recall.embed import _batch_extract_embeddings
from methods.recall.generation import AutoregressiveRecall
from methods.recall.mixture import CalibratedDataset, Corpus, MixtureConfig, query_epochs
from methods.recall.writing import WriteConfig
from methods.samples import Sample
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, MemoryTerm, TrainLog, drawn_first, train_lora
from tasks.base import NO_CLAUSE_THINK, Conversation, Memory
from tasks.examples import READING_ID, titled

# Set behind a text before its last token's state is taken (PromptEOL; Jiang et al. 2023, arXiv:2307.16645)
SUMMARY_PROMPT = ' This sentence means in one word: "'
VALUE_SPREAD = 1.0  # random part of a value's start: near-miss clauses' own vectors are too near


@dataclass(frozen=True)
class RecallConfig:
    """The calibrated recipe."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    recall: AutoregressiveRecall = field(default_factory=AutoregressiveRecall)
    step1_share: float = 0.2  # of the token budget
    # Of the contrastive loss, kept on in Step 2. At 1 its gradient is several times that of the token losses, and
    # fewer clauses are recited word for word (docs/EXPERIMENTS_LOG.md)
    step2_retrieval_weight: float = 0.1
    vectors_per_memory: int = 8  # P: fed one after another, each under a pad of its own; 0: the text itself
    write: WriteConfig = field(default_factory=WriteConfig)  # writing after the fit, weights frozen

    def __post_init__(self) -> None:
        if self.vectors_per_memory < 0:
            raise MethodError(f"vectors_per_memory={self.vectors_per_memory} is below 0; choose 0 or more")


def quoted(config: RecallConfig) -> RecallConfig:
    """`recall_quoted`: the same search, the clause's own text behind <recall> (OneGen, arXiv:2409.05152).

    Nothing is decoded from a vector, so no sample teaches only that.
    """
    return replace(config, vectors_per_memory=0, mixture=replace(config.mixture, memory_front=0.0))


@dataclass(frozen=True)
class StageLogs:
    """What a recipe's two steps left behind."""

    step1: TrainLog
    step2: TrainLog
    notes: dict[str, float] = field(default_factory=dict)


# --- the bank before training --------------------------------------------------------------------------


def extract(backbone: Backbone, memories: Sequence[Memory]) -> Tensor:
    """Raw vectors (N, D) of titled texts under the summary prompt."""
    return _batch_extract_embeddings(backbone, [titled(m) for m in memories], suffix=SUMMARY_PROMPT)


def spread(keys_ND: Tensor, num_vectors: int, seed: int) -> Tensor:
    """(N, P, D) unit values that near-miss clauses do not share: the keys plus seeded random directions."""
    values_NPD = keys_ND[:, None].expand(-1, num_vectors, -1)
    generator = torch.Generator().manual_seed(seed)
    noise_NPD = F.normalize(torch.randn(values_NPD.shape, generator=generator), dim=-1).to(keys_ND)
    return F.normalize(values_NPD + VALUE_SPREAD * noise_NPD, dim=-1)


def make_bank(backbone: Backbone, memories: Sequence[Memory], num_vectors: int, seed: int) -> MemoryBank:
    """Vectors of all memories and the null memory, from the untouched base model."""
    entries = [Memory(NULL_ID, NO_CLAUSE_THINK), *memories]
    raw_ND = extract(backbone, entries)
    check_vectors([m.id for m in entries], raw_ND)  # one NaN in the centre would be in every vector
    bank = MemoryBank(raw_ND.mean(dim=0), backbone.facts.embedding_norm, backbone.fingerprint)
    keys_ND = bank.normalise(raw_ND)
    fed_NPD = spread(keys_ND, num_vectors, seed) * bank.gain
    bank.write([m.id for m in entries], [m.text for m in entries], keys_ND, list(fed_NPD))
    return bank


# --- training -------------------------------------------------------------------------------------------


def kinds_of(bank: MemoryBank) -> Tensor:
    """(M,): a number for each kind of training passages, whose members are no negatives for each other.

    A memory is of a kind of its own.
    """
    kinds = [i.split("/")[1] if i.startswith(READING_ID) else i for i in bank.ids]
    numbers = {kind: n for n, kind in enumerate(dict.fromkeys(kinds))}
    return torch.tensor([numbers[kind] for kind in kinds], device=bank.keys_MD.device)


def budgets(train: LoraTrainConfig, step1_share: float) -> tuple[LoraTrainConfig, LoraTrainConfig]:
    """The token budget of both steps."""
    tokens = round(train.max_tokens * step1_share)
    return replace(train, max_tokens=tokens), replace(train, max_tokens=train.max_tokens - tokens)


def train_step(
    setup: MethodSetup,
    step: Literal["step1", "step2"],
    bank: MemoryBank,
    epochs: Iterator[list[list[Sample]]],
    config: LoraTrainConfig,
    *,
    learn_vectors: bool = True,
    weight: float = 1.0,
    kind_M: Tensor | None = None,
    on_epoch_end: Callable[[int], None] | None = None,
) -> TrainLog:
    """One step's LoRA, on Q and V only in Step 1 (specification 4.2), merged at its end.

    learn_vectors: keys, and in Step 2 what is fed, learn with the weights; the bank gets them. weight: of the
    retrieval loss. kind_M: as in `MemoryTerm`.
    """
    memory = MemoryTerm(
        bank.keys_MD,
        bank.values_MPD,
        bank.gain,
        weight=weight,
        train_keys=learn_vectors,
        train_values=learn_vectors and step == "step2" and bank.num_vectors > 0,
        kind_M=kind_M,
    )
    log = train_lora(
        setup.backbone,
        epochs,
        config,
        stage=f"recall {step}",
        target_modules=query_value(setup.backbone) if step == "step1" else (),
        memory=memory,
        progress=setup.progress,
        on_epoch_end=on_epoch_end,
        adapter_to=setup.adapters / step,
        checkpoints=setup.checkpoint_of(step),
    )
    if memory.keys_MD.requires_grad:
        bank.keys_MD = F.normalize(memory.keys_MD.detach(), dim=-1)
    if memory.values_MPD.requires_grad:
        bank.take_values(F.normalize(memory.values_MPD.detach(), dim=-1))
    return log


def query_value(backbone: Backbone) -> tuple[str, ...]:
    """What Step 1 trains (specification 4.2). Raises MethodError for a model without such layers."""
    if not backbone.facts.query_value_targets:
        raise MethodError(
            f"{backbone.name} has no query and value projections, and recall's Step 1 trains these alone"
        )
    return backbone.facts.query_value_targets


def train_calibrated(
    setup: MethodSetup, config: RecallConfig, memories: Sequence[Memory], sft: Sequence[Conversation]
) -> tuple[MemoryBank, StageLogs]:
    """Makes the bank and trains both steps of the recipe."""
    corpus = Corpus.of(memories, sft, setup.examples)
    passages = corpus.passages
    seed = setup.train.seed
    bank = make_bank(setup.backbone, [*memories, *passages], config.vectors_per_memory, seed)
    step1, step2 = budgets(setup.train, config.step1_share)
    kind_M = kinds_of(bank)
    dataset = CalibratedDataset(
        setup.backbone, bank, corpus, config.mixture, setup.examples, step2.batch_tokens, seed
    )
    dataset.check()
    queries = query_epochs(setup.backbone, bank, corpus, setup.examples, step1.batch_tokens, seed)
    decoding = drawn_first(setup.backbone, dataset.epochs())
    log1 = train_step(setup, "step1", bank, queries, step1, kind_M=kind_M)
    log2 = train_step(setup, "step2", bank, decoding, step2, weight=config.step2_retrieval_weight, kind_M=kind_M)
    bank.forget([passage.id for passage in passages])  # they were there to train on
    return bank, StageLogs(log1, log2)
