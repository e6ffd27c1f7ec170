"""Whether one manual in two formats gives the same clauses: `python benchmarks/read_twice.py FOLDER FOLDER`.

Reads both folders and prints, for each, its clauses, the share whose letters and digits stand in a clause of the
other one exactly, the share that is alike (at least 0.9 of their words in common), and the time.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from tasks.documents.accounting import accounts
from tasks.documents.cutting import cut
from tasks.documents.folder import read_folder

ALIKE = 0.9


def clauses_of(path: Path) -> list[Counter[str]]:
    """The words of each clause of a folder, counted."""
    started, worked = time.perf_counter(), time.process_time()
    folder = read_folder(path)
    found = cut(folder.sections)
    lost = sum(account.lost for account in accounts(folder.documents, found))
    visible = sum(account.visible for account in accounts(folder.documents, found))
    sys.stdout.write(
        f"{path}: {len(found.clauses)} clauses, {lost} of {visible} characters lost, "
        f"{time.perf_counter() - started:.1f} s, {time.process_time() - worked:.1f} s of CPU\n"
    )
    return [Counter(re.findall(r"[^\W_]+", clause.text.lower())) for clause in found.clauses]


def shares(ours: list[Counter[str]], theirs: list[Counter[str]]) -> tuple[float, float]:
    """(share of our clauses that are exactly one of theirs, share that is ALIKE to one)."""
    exact = {frozenset(words.items()) for words in theirs}
    index: dict[str, set[int]] = defaultdict(set)
    for n, words in enumerate(theirs):
        for word in words:
            index[word].add(n)
    same = alike = 0
    for words in ours:
        if frozenset(words.items()) in exact:
            same += 1
            alike += 1
            continue
        near = Counter(n for word in words if len(index[word]) < 200 for n in index[word])
        best = max(
            (
                2 * (words & theirs[n]).total() / (words.total() + theirs[n].total())
                for n, _ in near.most_common(5)
            ),
            default=0.0,
        )
        alike += best >= ALIKE
    return same / len(ours), alike / len(ours)


def main() -> None:
    one, two = (clauses_of(Path(word)) for word in sys.argv[1:3])
    for name, (exact, alike) in zip(sys.argv[1:3], (shares(one, two), shares(two, one)), strict=True):
        sys.stdout.write(f"{name}: {exact:.1%} exactly, {alike:.1%} alike in the other\n")


if __name__ == "__main__":
    main()
