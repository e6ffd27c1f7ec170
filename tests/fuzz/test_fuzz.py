"""The short form of `make fuzz`: the same targets on inputs that hypothesis puts together from their words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS

SHORT = {"docx": 10, "xlsx": 10, "pdf": 10, "hydra_words": 3, "config": 10, "handbook": 10}
NUM_INPUTS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_documented_errors(name: str) -> None:
    target = TARGETS[name]
    words = st.one_of(
        st.sampled_from([word.encode() for word in target.words]),
        st.text(max_size=4).map(str.encode),
        st.binary(max_size=4),
    )
    typed = st.lists(words, max_size=30).map(b"".join)
    inputs = typed
    if target.seeds:  # a whole one with something in it cut out or put in
        seed = st.sampled_from(target.seeds)
        changed = st.tuples(seed, typed, st.floats(0, 1), st.integers(0, 60)).map(
            lambda drawn: (
                drawn[0][: int(len(drawn[0]) * drawn[2])]
                + drawn[1]
                + drawn[0][int(len(drawn[0]) * drawn[2]) + drawn[3] :]
            )
        )
        inputs = st.one_of(typed, changed)

    @settings(max_examples=SHORT.get(name, NUM_INPUTS), derandomize=True)
    @given(inputs)
    def check(body: bytes) -> None:
        target.run(body)

    check()
