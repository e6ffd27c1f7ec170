"""Pairs of similar texts among many, without comparing every text with every other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence


def candidate_pairs(word_sets: Sequence[frozenset[str]], least: float) -> Iterator[tuple[int, int]]:
    """Index pairs i < j whose Jaccard similarity is at least `least` (0 < least <= 1), each once.

    Exact, by prefix filtering: two sets that share that much share one of their rarest words. Empty sets
    pair with nothing. Bayardo et al. 2007, "Scaling up all pairs similarity search".
    """
    counts = Counter(word for words in word_sets for word in words)
    holders: dict[str, list[int]] = defaultdict(list)
    for j, words in enumerate(word_sets):
        by_rarity = sorted(words, key=lambda word: (counts[word], word))
        num_kept = len(words) - math.ceil(least * len(words)) + 1
        met: set[int] = set()
        for word in by_rarity[:num_kept]:
            met.update(holders[word])
        for i in sorted(met):
            if not least * len(words) <= len(word_sets[i]) <= len(words) / least:
                continue
            common = len(words & word_sets[i])
            if common >= least * (len(words) + len(word_sets[i]) - common):
                yield i, j
        for word in by_rarity[:num_kept]:
            holders[word].append(j)


def components(num_items: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of items that pairs connect, items that no pair names left out; in order of first item."""
    parent = list(range(num_items))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for i, j in pairs:
        parent[max(root(i), root(j))] = min(root(i), root(j))
    groups: dict[int, list[int]] = defaultdict(list)
    for item in sorted({n for pair in pairs for n in pair}):
        groups[root(item)].append(item)
    return list(groups.values())
