"""The tree's own rules: imports run one way, and each outside library has its one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("tasks", "methods", "eval", "reports", "pipelines")  # each may import those before it
FILES = [file for package in ORDER for file in sorted((ROOT / package).rglob("*.py"))]


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of the modules imported anywhere in the file, inside functions and TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def importers(*libraries: str) -> set[str]:
    return {
        name_of(file) for file in FILES if {name.split(".")[0] for name in imports(tree_of(file))} & set(libraries)
    }


def calls_of(attribute: str) -> set[tuple[str, str]]:
    """(file, what it is called on) of every call `X.attribute(...)`."""
    return {
        (name_of(file), ast.unparse(node.func.value))
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == attribute
    }


def test_there_is_something_to_check() -> None:
    assert {name_of(file).split("/")[0] for file in FILES} == set(ORDER)
    assert "pipelines" in {name.split(".")[0] for name in imports(tree_of(ROOT / "pipelines/compare.py"))}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    above = set(ORDER[ORDER.index(name_of(file).split("/")[0]) + 1 :])
    assert not {name for name in imports(tree_of(file)) if name.split(".")[0] in above}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A deferred import would hide it from Python, not from the reader."""
    modules = {name_of(file).removesuffix(".py").replace("/", "."): file for file in FILES}
    graph = {name: modules.keys() & set(imports(tree_of(file))) - {name} for name, file in modules.items()}
    assert graph["pipelines.compare"] > {"pipelines.footprint", "eval.runner"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_name_eval_is_never_bound(file: Path) -> None:
    """`import eval` would hide the builtin; names are imported from its modules instead."""
    names = [alias.name for n in ast.walk(tree_of(file)) if isinstance(n, ast.Import) for alias in n.names]
    assert not [name for name in names if name.split(".")[0] == "eval"]


def test_models_are_loaded_in_one_place() -> None:
    """Any other loader could run code that lies in a model folder, or read pickles."""
    assert calls_of("from_pretrained") == {
        ("methods/backbone.py", "AutoModelForCausalLM"),
        ("methods/backbone.py", "AutoTokenizer"),
        ("methods/backbone.py", "PeftModel"),
    }


def test_code_in_a_model_folder_is_never_run() -> None:
    settings = [
        (name_of(file), keyword.arg, ast.unparse(keyword.value))
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("trust_remote_code", "use_safetensors", "weights_only")
    ]
    assert {value for _, name, value in settings if name == "trust_remote_code"} == {"False"}
    assert {value for _, name, value in settings if name != "trust_remote_code"} <= {"True"}


@pytest.mark.parametrize("name", ["pickle", "dill", "joblib", "cloudpickle"])
def test_nothing_is_pickled(name: str) -> None:
    assert importers(name) == set()
    assert not {file for file, where in calls_of("load") if where == "torch"}


def test_only_the_mlflow_log_imports_mlflow() -> None:
    assert importers("mlflow") == {"reports/mlflow_log.py"}


def test_only_pipelines_know_hydra() -> None:
    found = importers("hydra", "omegaconf")
    assert found
    assert {file.split("/")[0] for file in found} == {"pipelines"}


def test_tasks_and_metrics_need_no_model() -> None:
    """Every metric can be computed again from records, without a GPU or a model."""
    heavy = importers("torch", "transformers", "peft", "accelerate", "sentence_transformers", "chromadb")
    measuring = {file for file in heavy if file.startswith(("tasks/", "eval/", "reports/"))}
    assert measuring <= {"eval/runner.py", "eval/harness.py"}
    assert "methods/base.py" not in heavy
