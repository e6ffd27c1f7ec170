"""How long a memory bank of many memories takes to write: `python benchmarks/bank_write.py --count 100000`.

Keys and eight vectors a memory of the packaged model's width, written in pieces of 10,000. Seconds a memory should
not grow with the bank: the first and the last piece are set beside each other.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from methods.recall.bank import MemoryBank

WIDTH, VECTORS, PIECE = 576, 8, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--count", type=int, default=100_000, help="memories in all (default: 100000)")
    count = parser.parse_args().count
    bank = MemoryBank(torch.zeros(WIDTH), 1.0, "")
    seconds = []
    for start in range(0, count, PIECE):
        ids = [f"m{n}" for n in range(start, min(start + PIECE, count))]
        keys_ND, fed_NPD = torch.randn(len(ids), WIDTH), torch.randn(len(ids), VECTORS, WIDTH)
        begin = time.perf_counter()
        bank.write(ids, ["A clause of some words."] * len(ids), keys_ND, list(fed_NPD))
        seconds.append(time.perf_counter() - begin)
    sys.stdout.write(
        f"{len(bank)} memories, {bank.num_bytes / 2**30:.1f} GiB: {sum(seconds):.1f} s; the last piece took "
        f"{seconds[-1] / seconds[0]:.1f} times as long as the first\n"
    )


if __name__ == "__main__":
    main()
