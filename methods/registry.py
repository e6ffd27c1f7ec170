"""The methods by name. A new method is one file, one entry here and one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from methods import arms
from methods.base import Method, MethodError
from methods.rag import RagConfig, RagMethod
from methods.recall.method import RecallConfig, RecallMethod, SilentRecallConfig
from methods.recall.spec import SpecRecallConfig, SpecRecallMethod
from methods.recall.written import WrittenRecallConfig, WrittenRecallMethod
from methods.setup import MethodSetup
from methods.sft import SftConfig, SftMethod

# name -> config class; a method without settings of its own has none
CONFIGS: dict[str, type] = {
    "recall": RecallConfig,
    "recall_spec": SpecRecallConfig,
    "recall_silent": SilentRecallConfig,
    "recall_written": WrittenRecallConfig,
    "sft": SftConfig,
    "rag": RagConfig,
}
NAMES = (*CONFIGS, *arms.ARMS)


def check_names(names: Sequence[str]) -> None:
    """Raises MethodError for an unknown, repeated or missing name."""
    if not names:
        raise MethodError(f"run_methods is empty; choose from: {', '.join(NAMES)}")
    for name in names:
        if name not in NAMES:
            raise MethodError(f"run_methods: no method is called {name!r}; choose from: {', '.join(NAMES)}")
    if len(set(names)) != len(names):
        raise MethodError(f"run_methods names a method twice: {', '.join(names)}")


def build_method(
    name: str, setup: MethodSetup, configs: Mapping[str, Any], gold: Mapping[str, Sequence[str]]
) -> Method:
    """configs: method name -> its config object; gold: arms.gold_key -> clause ids, for the control arms alone."""
    check_names([name])
    builders: dict[str, Callable[[], Method]] = {
        "recall": lambda: RecallMethod(setup, configs.get("recall")),
        "recall_spec": lambda: SpecRecallMethod(setup, configs.get("recall_spec")),
        "recall_silent": lambda: RecallMethod(
            setup, configs.get("recall_silent") or SilentRecallConfig(), "recall_silent"
        ),
        "recall_written": lambda: WrittenRecallMethod(setup, configs.get("recall_written")),
        "sft": lambda: SftMethod(setup, configs.get("sft")),
        "rag": lambda: RagMethod(setup, configs.get("rag")),
        "none": lambda: arms.none(setup),
        "full_context": lambda: arms.full_context(setup, configs.get("rag") or RagConfig()),
        "oracle_text": lambda: arms.oracle_text(setup, gold, configs.get("rag") or RagConfig()),
        "oracle_vector": lambda: arms.oracle_vector(setup, gold, configs.get("recall")),
        "random_vector": lambda: arms.random_vector(setup, gold, configs.get("recall")),
    }
    return builders[name]()
