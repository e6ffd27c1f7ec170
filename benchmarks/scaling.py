"""What grows with the bank and with the clause: `python benchmarks/scaling.py [--run latest]`.

Three tables. *Bank*: the memory head, exact, beside an approximate index of a kept library (Chroma's HNSW), over
random unit keys of the packaged model's width; how often both name the same memory. *Clause*: what an answer's
forwards take for clauses of 25 to 400 tokens, for SFT, recall and RAG, with drafts and without. With --run also
*Finding*: the right clause first for a fit's dev questions, while invented clauses fill the bank.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import chromadb
import torch
from finding import embedded, opened  # beside this file
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import THINK_LM, Backbone, load_backbone, load_encoder
from methods.prefixes import new_cache
from methods.recall.bank import MemoryBank
from methods.recall.writing import query_states
from pipelines.progress import quiet_libraries
from tasks import synthetic
from tasks.base import Message
from tasks.examples import titled

WIDTH, VECTORS = 576, 8
SIZES = (100, 1_000, 10_000, 100_000)
NOISE = 0.5  # of a query beside its key, as a share of its length: a cosine of 0.89
QUERIES = 200
CLAUSES = (25, 100, 400)  # tokens
QUESTION, BEFORE, BEHIND = 40, 6, 40  # tokens: of the prompt, up to <recall>, behind the clause
PASSAGES = 3  # clauses in RAG's prompt
ROUNDS = 2


def median_ms(call: Callable[[Tensor], Any], each: Iterable[Tensor]) -> tuple[float, list[Any]]:
    """(milliseconds of a call in the middle, what the calls gave)."""
    seconds, given = [], []
    for one in each:
        begin = time.perf_counter()
        given.append(call(one))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) * 1000, given


def bank_row(size: int) -> str:
    """Size, bytes a memory, the head's time, that of the index, how often both agree, and its building time."""
    torch.manual_seed(size)
    bank = MemoryBank(torch.zeros(WIDTH), 1.0, "")
    keys_MD = F.normalize(torch.randn(size, WIDTH), dim=-1)
    ids = [f"m{n}" for n in range(size)]
    bank.write(ids, ["A clause of some words."] * size, keys_MD, list(torch.randn(size, VECTORS, WIDTH)))
    noise_QD = F.normalize(torch.randn(QUERIES, WIDTH), dim=-1)
    queries_QD = F.normalize(keys_MD[torch.randint(size, (QUERIES,))] + NOISE * noise_QD, dim=-1)
    head, exact = median_ms(lambda query_D: ids[int(bank.memory_head(query_D[None]).argmax())], queries_QD)
    with tempfile.TemporaryDirectory() as folder:
        client = chromadb.PersistentClient(path=folder)
        index = client.create_collection("keys", embedding_function=None, configuration={"hnsw": {"space": "ip"}})
        begin = time.perf_counter()
        step = client.get_max_batch_size()
        for start in range(0, size, step):
            part = slice(start, start + step)
            index.add(ids=ids[part], embeddings=keys_MD[part].numpy())
        built = time.perf_counter() - begin
        searched, found = median_ms(
            lambda query_D: index.query(query_embeddings=[query_D.numpy()], n_results=10)["ids"][0][0], queries_QD
        )
    same = sum(a == b for a, b in zip(exact, found, strict=True)) / QUERIES
    each = bank.num_bytes / size / 1024
    return f"{size:8d}   {each:8.1f}   {head:8.2f}   {searched:9.2f}   {same:10.3f}   {built:14.1f}"


def bank_rows() -> Iterable[str]:
    yield "memories   KiB each   head, ms   index, ms   same first   index built, s"
    yield from map(bank_row, SIZES)


def tapes(clause: int) -> dict[str, list[int]]:
    """Method -> how many tokens each forward of an answer takes, with a clause of so many tokens."""
    one_by_one, behind = [1] * clause, [1] * BEHIND
    opened = QUESTION + PASSAGES * clause
    return {
        "sft": [QUESTION, *one_by_one, *behind],
        "recall": [QUESTION, *[1] * BEFORE, VECTORS + clause, *behind],
        "rag": [opened, clause, *behind],
        "recall, no drafts": [QUESTION, *[1] * BEFORE, VECTORS, *one_by_one, *behind],
        "rag, no drafts": [opened, *one_by_one, *behind],
    }


@torch.no_grad()
def played(backbone: Backbone, tape: Sequence[int]) -> float:
    """Milliseconds of these forwards over one growing cache. Their number and width count, not their tokens."""
    model, cache = backbone.model, new_cache(backbone.model)
    ids = torch.randint(300, 20_000, (1, max(tape)), device=backbone.device)
    ends = list(accumulate(tape))
    begin = time.perf_counter()
    for width, end in zip(tape, ends, strict=True):
        model(
            input_ids=ids[:, :width],
            attention_mask=ids.new_ones(1, end),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return (time.perf_counter() - begin) * 1000


def clause_rows() -> Iterable[str]:
    """Seconds of an answer's forwards by the clause's tokens; methods take turns, medians."""
    backbone = load_backbone(THINK_LM, "cpu")
    names = list(tapes(1))
    yield f"clause   {'   '.join(names)}   ({backbone.dtype_name}; seconds)"
    for clause in CLAUSES:
        took: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name, tape in tapes(clause).items():
                took[name].append(played(backbone, tape))
        cells = (f"{statistics.median(took[name]) / 1000:{len(name)}.2f}" for name in names)
        yield f"{clause:6d}   {'   '.join(cells)}"


def finding_rows(run: str, sizes: Sequence[int] = (0, 368, 868)) -> Iterable[str]:
    """The right clause first, among the rulebook's clauses and so many invented ones."""
    fitted, recall, whole = opened(run)
    bank = recall.fitted_bank()
    asked = [qa for qa in whole.held_out("dev", "single") if qa.memory_ids]
    own = {memory.id for memory in fitted.task.memories}
    invented = synthetic.load(num_clauses=sizes[-1] + 3).memories
    encoder = load_encoder()
    queries_QD = query_states(recall.backbone, [(Message("user", qa.question),) for qa in asked])
    questions_QE = embedded(encoder, (qa.question for qa in asked))
    texts_ME = embedded(encoder, map(titled, whole.memories))
    text_ids = [memory.id for memory in whole.memories]
    yield "memories   recall, slice   recall, others   encoder, slice   encoder, others   keys added, ms each"
    have = 0
    for size in sizes:
        new = invented[have:size]
        each = 0.0
        if new:
            each = recall.index(new).seconds * 1000 / len(new)
            texts_ME = torch.cat([texts_ME, embedded(encoder, map(titled, new))])
            text_ids += [memory.id for memory in new]
        have = size
        cells = []
        for ids, scores_QM in ((bank.ids, bank.memory_head(queries_QD)), (text_ids, questions_QE @ texts_ME.T)):
            first = scores_QM.argmax(dim=-1).tolist()
            right = [ids[place] in qa.memory_ids for place, qa in zip(first, asked, strict=True)]
            for wanted in (True, False):
                group = [r for r, qa in zip(right, asked, strict=True) if (qa.memory_ids[0] in own) is wanted]
                cells.append(f"{sum(group) / len(group):.2f} of {len(group):3d}")
        yield f"{len(text_ids):8d}   " + "   ".join(f"{cell:>14}" for cell in cells) + f"   {each:18.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--run", help="a run's folder or id, for how often the right clause is found")
    options = parser.parse_args()
    quiet_libraries()
    tables = {"Bank": bank_rows(), "Clause": clause_rows()}
    if options.run:
        tables["Finding"] = finding_rows(options.run)
    for name, rows in tables.items():
        sys.stdout.write(f"{name}\n")
        for row in rows:
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
