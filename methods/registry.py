"""The methods by name. A new method is one file, one entry here and one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from methods import arms
from methods.base import Method, MethodError
from methods.rag import RagConfig, RagMethod
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig, quoted
from methods.recall.spec import SpecRecallConfig, SpecRecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod

# name -> config class; a method without an entry has no settings of its own, or those of the one that it varies
CONFIGS: dict[str, type] = {
    "recall": RecallConfig,
    "recall_spec": SpecRecallConfig,
    "rag": RagConfig,
}
VARIED = {  # name -> the method whose settings it takes
    "recall_quoted": "recall",
    "rag_direct": "rag",
    "full_context": "rag",
    "oracle_text": "rag",
    "oracle_vector": "recall",
    "random_vector": "recall",
}
VARIANTS = ("recall_quoted", "rag_direct")
NAMES = ("recall", "recall_spec", "sft", "rag", *VARIANTS, *arms.ARMS)


def check_names(names: Sequence[str]) -> None:
    """Raises MethodError for an unknown, repeated or missing name."""
    if not names:
        raise MethodError(f"run_methods is empty; choose from: {', '.join(NAMES)}")
    for name in names:
        if name not in NAMES:
            raise MethodError(f"run_methods: no method is called {name!r}; choose from: {', '.join(NAMES)}")
    if len(set(names)) != len(names):
        raise MethodError(f"run_methods names a method twice: {', '.join(names)}")


def settings_of(name: str, configs: Mapping[str, Any]) -> Any:
    """The settings that a method is built with; None where it has none."""
    return configs.get(VARIED.get(name, name))


def build_method(
    name: str, setup: MethodSetup, configs: Mapping[str, Any], gold: Mapping[str, Sequence[str]]
) -> Method:
    """configs: method name -> its config object; gold: arms.gold_key -> clause ids, for the control arms alone."""
    check_names([name])
    builders: dict[str, Callable[[], Method]] = {
        "recall": lambda: RecallMethod(setup, configs.get("recall")),
        "recall_spec": lambda: SpecRecallMethod(setup, configs.get("recall_spec")),
        "recall_quoted": lambda: RecallMethod(
            setup, quoted(configs.get("recall") or RecallConfig()), "recall_quoted"
        ),
        "sft": lambda: SftMethod(setup),
        "rag": lambda: RagMethod(setup, configs.get("rag")),
        "rag_direct": lambda: RagMethod(setup, configs.get("rag"), "rag_direct", quotes=False),
        "none": lambda: arms.none(setup),
        "full_context": lambda: arms.full_context(setup, configs.get("rag") or RagConfig()),
        "oracle_text": lambda: arms.oracle_text(setup, gold, configs.get("rag") or RagConfig()),
        "oracle_vector": lambda: arms.oracle_vector(setup, gold, configs.get("recall")),
        "random_vector": lambda: arms.random_vector(setup, gold, configs.get("recall")),
    }
    return builders[name]()
