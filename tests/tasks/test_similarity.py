"""The quick search for similar pairs finds what comparing all pairs finds."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tasks.similarity import candidate_pairs, components

WORD_SETS = st.lists(st.frozensets(st.sampled_from("abcdefgh"), max_size=6), max_size=12)


@given(sets=WORD_SETS, least=st.sampled_from([0.3, 0.5, 2 / 3, 0.8, 1.0]))
def test_it_finds_what_all_pairs_find(sets: list[frozenset[str]], least: float) -> None:
    expected = {
        (i, j)
        for (i, one), (j, two) in combinations(enumerate(sets), 2)
        if one and two and len(one & two) >= least * len(one | two)
    }
    found = list(candidate_pairs(sets, least))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_groups_are_what_pairs_connect() -> None:
    assert components(7, [(0, 4), (4, 2), (5, 6)]) == [[0, 2, 4], [5, 6]]
    assert components(3, []) == []
