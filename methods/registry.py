"""The methods by name. A new method is one file, one entry here and one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from methods.base import Method
from methods.rag import RagConfig, RagMethod
from methods.recall.method import RecallMethod
from methods.recall.recipe import RecallConfig, quoted
from methods.recall.spec import SpecRecallConfig, SpecRecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod

CONFIGS: dict[str, type] = {"recall": RecallConfig, "recall_spec": SpecRecallConfig, "rag": RagConfig}
VARIES = {"recall_quoted": "recall", "rag_direct": "rag"}  # name -> the method whose settings it takes
METHODS: dict[str, Callable[[MethodSetup, Any], Method]] = {  # the second: its settings, None for the defaults
    "recall": RecallMethod,
    "recall_spec": SpecRecallMethod,
    "sft": lambda setup, _: SftMethod(setup),
    "rag": RagMethod,
    "recall_quoted": lambda setup, config: RecallMethod(setup, quoted(config or RecallConfig()), "recall_quoted"),
    "rag_direct": lambda setup, config: RagMethod(setup, config, "rag_direct", quotes=False),
}


def settings_of(name: str, configs: Mapping[str, Any]) -> Any:
    """The settings that a method is built with, of all methods' by name; None where it has none."""
    return configs.get(VARIES.get(name, name))


def build_method(name: str, setup: MethodSetup, configs: Mapping[str, Any]) -> Method:
    """configs: method name -> its config object."""
    return METHODS[name](setup, settings_of(name, configs))
