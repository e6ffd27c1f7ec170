"""Pairs of similar texts among many, without comparing every text with every other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence


def candidate_pairs(word_sets: Sequence[frozenset[str]], least: float) -> Iterator[tuple[int, int]]:
    """Index pairs i < j whose Jaccard similarity is at least `least` (0 < least <= 1), each once.

    Exact, by prefix filtering: two sets that share that much share one of their rarest words, and the smaller
    one shares more of its own. Empty sets pair with nothing. Bayardo et al. 2007, "Scaling up all pairs
    similarity search"; Xiao et al. 2008, "Efficient similarity joins for near duplicate detection".
    """
    counts = Counter(word for words in word_sets for word in words)
    short: dict[str, list[int]] = defaultdict(list)  # word -> sets that could be the smaller of a pair
    long: dict[str, list[int]] = defaultdict(list)  # ... or the larger, which shares less of itself
    for j, words in enumerate(word_sets):
        size = len(words)
        by_rarity = sorted(words, key=lambda word: (counts[word], word))
        as_larger, as_smaller = (
            by_rarity[: size - math.ceil(share * size - 1e-9) + 1] for share in (least, 2 * least / (1 + least))
        )
        met: set[int] = set()
        for word in as_larger:
            met.update(short[word])
        for word in as_smaller:
            met.update(long[word])
        for i in sorted(met):
            other = word_sets[i]
            if not least * size <= len(other) <= size / least:
                continue
            common = len(words & other)
            if common >= least * (size + len(other) - common):
                yield i, j
        for word in as_larger:
            long[word].append(j)
        for word in as_smaller:
            short[word].append(j)


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
