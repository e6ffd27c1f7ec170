"""Configurations: every preset resolves, defaults stand once, and a value of the wrong type is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from methods.decode import Sampling
from methods.registry import CONFIGS
from methods.train import LoraTrainConfig
from pipelines.cli import CONF, compose_config
from pipelines.config import build, default_of, resolve
from tasks.base import TaskError
from tasks.dialogues import DialogueOptions
from tasks.examples import ExampleConfig
from tasks.regs import load

PRESETS = [file.stem for file in (CONF / "preset").glob("*.yaml")]


@dataclass(frozen=True)
class Inner:
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: int = 3
    names: tuple[str, ...] = ("a", "b")
    on: bool = False
    inner: Inner = field(default_factory=Inner)


def test_defaults_survive_the_way_through_hydra() -> None:
    """The dataclasses beside their owners are the only place where a default stands."""
    resolved = resolve(compose_config("compare", []))
    assert resolved.sampling == Sampling()
    assert resolved.examples == ExampleConfig()
    assert resolved.dialogues == DialogueOptions()
    assert resolved.method_configs == {name: kind() for name, kind in CONFIGS.items()}
    assert resolved.run_methods == ["recall", "sft", "rag"]
    assert resolved.preset == "laptop"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves(preset: str) -> None:
    resolved = resolve(compose_config("compare", [f"preset={preset}"]))
    assert resolved.preset == preset
    assert isinstance(resolved.train, LoraTrainConfig)
    clauses = load(num_clauses=resolved.task.num_clauses or None, seed=resolved.seed)
    assert len(clauses.memories) == (resolved.task.num_clauses or len(load().memories))


def test_the_laptop_preset_is_as_designed() -> None:
    """Section 8 of the design: near-miss families of three or more, a third of the clauses uncued."""
    resolved = resolve(compose_config("compare", []))
    task = load(num_clauses=resolved.task.num_clauses, seed=0)
    assert len(task.memories) >= 16
    families = [m.family for m in task.memories]
    assert min(families.count(family) for family in families) >= 3
    assert sum(not m.cued for m in task.memories) * 3 == len(task.memories)


def test_words_override_presets_and_defaults() -> None:
    words = ["preset=smoke", "train.max_tokens=77", "methods.rag.top_k=5", "methods.recall.mixture.memory_full=2"]
    resolved = resolve(compose_config("compare", words))
    assert resolved.train.max_tokens == 77
    assert resolved.method_configs["rag"].top_k == 5
    assert resolved.method_configs["recall"].mixture.memory_full == 2.0
    assert resolved.model == "tiny"


def test_plain_values_and_back() -> None:
    plain = default_of(Outer)
    assert plain == {"count": 3, "names": ["a", "b"], "on": False, "inner": {"share": 0.5}}
    assert build(Outer, plain, "x") == Outer()


def test_a_whole_number_may_stand_for_a_float() -> None:
    assert build(Inner, {"share": 1}, "x") == Inner(1.0)
    assert type(build(Inner, {"share": 1}, "x").share) is float


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cuont": 3}, r"x\.cuont: no such setting; choose from: count, inner, names, on"),
        ({"inner": {"shra": 1.0}}, r"x\.inner\.shra: no such setting; choose from: share"),
        ({"count": "3"}, r"x\.count='3' is not of type int"),
        ({"count": True}, r"x\.count=True is not of type int"),
        ({"on": 1}, r"x\.on=1 is not of type bool"),
        ({"inner": {"share": "half"}}, r"x\.inner\.share='half' is not of type float"),
        ({"inner": {"share": True}}, r"x\.inner\.share=True is not of type float"),
        ({"inner": 3}, r"x\.inner=3: is a group"),
        ({"names": "a"}, r"x\.names='a' is not a list of str"),
        ({"names": [1]}, r"x\.names=\[1\] is not a list of str"),
        ({"count": None}, r"x\.count=None is not of type int"),
    ],
)
def test_what_is_wrong_is_named(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        build(Outer, values, "x")


def test_an_unknown_log_level_is_named_with_the_choices() -> None:
    assert resolve(compose_config("compare", ["log_level=debug"])).log_level == "debug"
    with pytest.raises(TaskError, match=r"log_level=loud: .* debug, info, warning"):
        resolve(compose_config("compare", ["log_level=loud"]))
