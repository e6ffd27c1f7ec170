"""Our decode loop, recall gate open, against stock `generate` on answers without recall, as a ratio.

`python benchmarks/decode_overhead.py`: both decode the same greedy tokens, taking turns; the median of the
paired ratios is what counts, since absolute times drift with the machine.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from methods.backbone import load_backbone
from methods.chat import encode_prompt
from methods.decode import generate
from methods.recall.bank import MemoryBank
from methods.recall.generation import AutoregressiveRecall, RecallMechanism
from pipelines.progress import quiet_libraries
from tasks.base import Message

ROUNDS, NEW_TOKENS = 11, 48


def main() -> None:
    quiet_libraries()
    backbone = load_backbone()
    bank = MemoryBank(torch.zeros(backbone.facts.hidden_size), 1.0, backbone.fingerprint)
    vectors_MD = torch.randn(100, backbone.facts.hidden_size)
    bank.write([str(i) for i in range(100)], ["text"] * 100, vectors_MD, list(vectors_MD[:, None]))
    prompt = encode_prompt(backbone, [Message("user", "Tell me a long story about the sea.")])

    def ours() -> list[int]:
        mechanism = RecallMechanism(bank, backbone, AutoregressiveRecall())
        return list(generate(backbone, [prompt], NEW_TOKENS, mechanism=mechanism)[0].token_ids)

    def stock() -> list[int]:
        output = backbone.model.generate(
            input_ids=torch.tensor([prompt], device=backbone.device),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=backbone.device),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=backbone.ids.eos,
            pad_token_id=backbone.tokenizer.pad_token_id,
            suppress_tokens=[backbone.ids.memory_pad],
        )
        return list(output[0, len(prompt) :].tolist())

    if ours() != stock():  # warm-up, and the condition under which a ratio means anything
        raise SystemExit("the two loops decode different tokens here; choose another prompt")
    ratios = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        ours()
        middle = time.perf_counter()
        stock()
        ratios.append((middle - begin) / (time.perf_counter() - middle))
    sys.stdout.write(
        f"ours / stock over {ROUNDS} pairs of {NEW_TOKENS} tokens: median {statistics.median(ratios):.3f}, "
        f"min {min(ratios):.3f}, max {max(ratios):.3f}\n"
    )


if __name__ == "__main__":
    main()
