"""One vector of a memory as key and as value: it learns for both, and stays one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from methods.recall.stage1 import memory_term, train_recall_token
from methods.recall.stage2 import train_memory_decoding
from model_script import random_bank
from test_train import CONFIG, batches_of

from methods.backbone import Backbone
from methods.chat import encode_pieces, supervised
from methods.recall.method import RecallConfig, RecallMethod
from methods.setup import MethodSetup
from methods.train import LoraTrainConfig, no_progress
from tasks.base import TaskData


def test_the_one_vector_gets_both_gradients(lively: Backbone) -> None:
    bank = random_bank(lively)
    query, index = torch.randn(2, lively.hidden_size), torch.tensor([1, 4])

    def gradients(tied: bool) -> list[torch.Tensor]:
        term = memory_term(bank, CONFIG, train_keys=True, train_values=True, tied=tied)
        (term.retrieval_loss(query, index) + term.vectors(index).sum()).backward()
        return [p.grad for p in term.parameters() if p.grad is not None]

    bank.take_values(bank.keys_MKD)
    (both,) = gradients(tied=True)
    keys, values = gradients(tied=False)
    torch.testing.assert_close(both, keys + values)


def test_they_stay_one_in_both_steps(lively: Backbone) -> None:
    bank = random_bank(lively)
    bank.take_values(bank.keys_MKD)
    ids, before = lively.ids, bank.keys_MD.clone()
    target = encode_pieces(lively.tokenizer, [ids.think, "\n", ids.recall])
    recall = len(target) - 1
    asked = supervised((), target, "query", recall=recall, memory_index=2, target_loss_from=len(target))
    train_recall_token(lively, bank, itertools.repeat([[asked]]), CONFIG, no_progress, train_keys=True, tied=True)
    after_step1 = bank.keys_MD.clone()
    assert torch.equal(bank.keys_MD, bank.values_MD)
    assert not torch.equal(after_step1, before)
    train_memory_decoding(
        lively,
        bank,
        itertools.repeat(batches_of(lively)),
        CONFIG,
        no_progress,
        train_keys=True,
        train_values=True,
        tied=True,
    )
    assert torch.equal(bank.keys_MD, bank.values_MD)
    assert not torch.equal(bank.keys_MD, after_step1)


@pytest.mark.slow
def test_a_fit_keeps_them_one_and_counts_them_once(
    pristine_lively: Backbone, regs: TaskData, tmp_path: Path
) -> None:
    setup = MethodSetup(pristine_lively.clone(), LoraTrainConfig(max_tokens=2500), folder=tmp_path)
    method = RecallMethod(setup, RecallConfig(tie_values=True, vectors_per_memory=1, distil_weight=0.0))
    start = method._make_bank(regs.memories, [])
    assert torch.equal(start.keys_MD, start.values_MD)
    method.fit(regs.memories, regs.sft)
    bank = method.bank
    assert bank is not None
    assert torch.equal(bank.keys_MD, bank.values_MD)
    assert bool((bank.keys_MD - start.keys_MD).norm(dim=-1).gt(1e-4).any())
    assert bank.num_bytes == bank.keys_MKD.nbytes
