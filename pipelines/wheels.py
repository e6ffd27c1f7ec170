"""Wheels that another machine lacks, for its Python and platform: found by their metadata, fetched with pip."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from methods.base import MethodError
from pipelines.packages import walk

OLDEST_GLIBC = 17  # of manylinux_2_17: none of the packages has wheels for older ones alone
_LEGACY = {"x86_64": ("manylinux2014", "manylinux2010", "manylinux1"), "aarch64": ("manylinux2014",)}


@dataclass(frozen=True)
class Target:
    """A machine that wheels are fetched for."""

    python: str  # "3.12"
    platform: str  # the newest that it takes, "manylinux_2_28_x86_64"; older ones are taken too

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d\d", self.python) or int(self.python[2:]) < 11:
            raise MethodError(f"python={self.python}: is no version of Python from 3.11 on, e.g. python=3.12")
        found = re.fullmatch(r"manylinux_2_(\d\d)_(\w+)", self.platform)
        if found is None or found[2] not in _LEGACY or int(found[1]) < OLDEST_GLIBC:
            raise MethodError(
                f"platform={self.platform}: name the machine's glibc, from 2.{OLDEST_GLIBC} on, and its processor "
                f"({', '.join(_LEGACY)}), e.g. platform=manylinux_2_28_x86_64"
            )

    @property
    def machine(self) -> str:
        """As `uname -m` says it there."""
        return self.platform.split("_", 3)[3]

    @property
    def platforms(self) -> list[str]:
        """Tags of the wheels that run there, the newest first."""
        newest = int(self.platform.split("_")[2])
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
        return [*tags, *(f"{name}_{self.machine}" for name in _LEGACY[self.machine])]

    @property
    def environment(self) -> dict[str, str]:
        """What the markers of requirements are read against."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @property
    def pip_words(self) -> list[str]:
        """What tells pip to think of that machine and not of this one."""
        words = ["--only-binary=:all:", "--python-version", self.python, "--implementation", "cp"]
        return [*words, *(word for tag in self.platforms for word in ("--platform", tag))]


@dataclass(frozen=True)
class Wheel:
    """A fetched wheel and what its METADATA says."""

    path: Path
    version: str
    requires_python: str
    requires: tuple[Requirement, ...]

    @classmethod
    def read(cls, path: Path) -> Wheel:
        with zipfile.ZipFile(path) as archive:
            (name,) = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            facts = message_from_bytes(archive.read(name))
        requires = tuple(Requirement(text) for text in facts.get_all("Requires-Dist", ()))
        return cls(path, facts["Version"], facts.get("Requires-Python", ""), requires)


def read_have(path: Path) -> dict[str, str | None]:
    """Package -> its version on that machine, or None where it tells none, from what `pip freeze` printed there.

    Raises MethodError, with the line, for one that is none.
    """
    found: dict[str, str | None] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MethodError(f"have={path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):  # an option, or a package in development
            continue
        try:
            asked = Requirement(text)
            versions = [str(Version(part.version)) for part in asked.specifier if part.operator == "=="]
            if len(versions) != len(asked.specifier):
                raise InvalidRequirement(text)
        except (InvalidRequirement, InvalidVersion) as error:
            raise MethodError(
                f"have={path}:{number}: {text!r} is no line of `pip freeze`, e.g. torch==2.11.0; take what that "
                "command prints on the machine without a network"
            ) from error
        found[canonicalize_name(asked.name)] = versions[0] if versions else None
    return found


def missing_wheels(
    asked: Iterable[Requirement], have: Mapping[str, str | None], target: Target, folder: Path
) -> dict[str, Wheel]:
    """Name -> the wheel, fetched into `folder`, of all that the target lacks or has in a version that will not do.

    The newest of each version asked for is taken as it comes up, and again where more is asked of it later.
    """
    chosen: dict[str, Wheel] = {}

    def find(name: str, specifier: SpecifierSet) -> tuple[Requirement, ...]:
        version = have.get(name)
        if name in have and (version is None or specifier.contains(version, prereleases=True)):
            return ()
        if name not in chosen or not specifier.contains(chosen[name].version, prereleases=True):
            if name in chosen:
                chosen.pop(name).path.unlink()
            chosen[name] = _fetch(name, specifier, target, folder)
        return chosen[name].requires

    walk(asked, target.environment, find)
    return chosen


def _fetch(name: str, specifier: SpecifierSet, target: Target, folder: Path) -> Wheel:
    """Downloads a wheel that runs there; of a package without wheels, builds one here if it suits any Python."""
    into = folder / name
    said = _pip("download", "--no-deps", *target.pip_words, "--dest", str(into), f"{name}{specifier}")
    if said:
        built = _pip("wheel", "--no-deps", "--wheel-dir", str(into), f"{name}{specifier}")
        wheels = [] if built else [Wheel.read(path) for path in into.glob("*-none-any.whl")]
        if not any(SpecifierSet(wheel.requires_python).contains(f"{target.python}.0") for wheel in wheels):
            raise MethodError(
                f"no wheel of {name}{specifier} for Python {target.python} on {target.platform} is to be had "
                f"({said}); choose another python= or platform=, or have that package there and name it in have="
            )
    (path,) = into.glob("*.whl")
    return Wheel.read(path)


def install(wheels: Iterable[Path], target: Target, folder: Path) -> None:
    """Lays wheels out in a folder as they are imported from."""
    words = ["--no-deps", "--no-compile", "--no-index", *target.pip_words, "--target", str(folder)]
    said = _pip("install", *words, *map(str, wheels))
    if said:
        raise MethodError(f"the wheels could not be laid out in {folder}: {said}")


def _pip(command: str, *words: str) -> str:
    """ "" where pip did it, else its last word on why not."""
    if importlib.util.find_spec("pip") is None:
        raise MethodError(
            f"{sys.executable} has no pip, which fetches the wheels; install it into that environment"
        )
    call = [sys.executable, "-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    last = (errors or done.stderr.splitlines() or ["pip failed"])[-1]
    return last.removeprefix("ERROR: ") if done.returncode else ""
