"""How often the right clause comes first among the whole rulebook: `python benchmarks/finding.py --run latest`.

Of a run's fitted recall, dev questions asked alone. A key is the mean of its questions' states; the memory
head ranks by the distance to it. Beside that stand the angle to the same keys, and the sentence encoder of RAG.
Nothing is decoded: states and keys alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import load_encoder
from methods.recall.bank import NULL_ID
from methods.recall.method import RecallMethod
from methods.recall.writing import query_states
from pipelines.fitted_run import FittedRun
from pipelines.progress import quiet_libraries
from pipelines.report import find_run
from tasks.base import QA, Message, TaskData
from tasks.examples import titled


def opened(run: str) -> tuple[FittedRun, RecallMethod, TaskData]:
    """A run, its fitted recall, and the rulebook that its slice is from."""
    fitted = FittedRun(find_run(run, Path("runs")))
    recall = fitted.method("recall")
    assert isinstance(recall, RecallMethod)
    return fitted, recall, replace(fitted.config.task, num_clauses=0).load(fitted.seed)


def embedded(encoder: Any, texts: Iterable[str]) -> Tensor:
    return torch.tensor(encoder.encode(list(texts), normalize_embeddings=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--run", default="latest", help="a run's folder or id (default: latest)")
    options = parser.parse_args()
    quiet_libraries()
    fitted, recall, whole = opened(options.run)
    bank = recall.fitted_bank()
    asked = [qa for kind in ("single", "unanswerable") for qa in whole.held_out("dev", kind)]
    queries_QD = query_states(recall.backbone, [(Message("user", qa.question),) for qa in asked])
    encoder = load_encoder()
    texts_MD = embedded(encoder, map(titled, whole.memories))
    questions_QD = embedded(encoder, (qa.question for qa in asked))
    rows: dict[str, tuple[list[str], Tensor]] = {
        "recall, distance": (bank.ids, bank.memory_head(queries_QD)),
        "recall, angle": (bank.ids, queries_QD @ F.normalize(bank.keys_MD, dim=-1).T),
        "sentence encoder": ([memory.id for memory in whole.memories], questions_QD @ texts_MD.T),
    }
    fitted_ids = {memory.id for memory in fitted.task.memories}
    groups = {
        "slice": [qa for qa in asked if qa.memory_ids and qa.memory_ids[0] in fitted_ids],
        "other clauses": [qa for qa in asked if qa.memory_ids and qa.memory_ids[0] not in fitted_ids],
        "nothing answers": [qa for qa in asked if not qa.memory_ids],
    }
    sys.stdout.write(f"{len(whole.memories)} clauses, {len(fitted_ids)} of them fitted, seed {fitted.seed}\n")
    for name, (ids, scores_QM) in rows.items():
        first = dict(zip((qa.id for qa in asked), scores_QM.argmax(dim=-1).tolist(), strict=True))

        def found(qa: QA, ids: list[str] = ids, first: dict[str, int] = first) -> bool:
            return ids[first[qa.id]] in (qa.memory_ids or (NULL_ID,))

        shares = (
            f"{group} {sum(map(found, of)) / len(of):.2f} of {len(of)}"
            for group, of in groups.items()
            if of and (NULL_ID in ids or group != "nothing answers")
        )
        sys.stdout.write(f"{name}: {', '.join(shares)}\n")


if __name__ == "__main__":
    main()
