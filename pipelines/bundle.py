"""What a machine without a network lacks, in parts: `python -m pipelines.bundle to=FOLDER have=FILE`.

FOLDER/part-000, ...   one xz-compressed tar, cut: project/ the tracked files, packages/ wheels laid out and models
FOLDER/SHA256SUMS      of each part
FOLDER/unpack.sh       joins and checks them there, sets the paths up and says what is missing
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from methods.base import MethodError
from pipelines.cli import main_with
from pipelines.packages import ENCODER, MODELS, OPTIONAL, ROOT, of_tests, requirements
from pipelines.run import COMMIT_FILE, git_sha
from pipelines.wheels import Target, install, missing_wheels, read_have

UNPACK = Path(__file__).with_name("templates") / "unpack.sh"
LEFT_OUT = ("mlflow", "lm-eval")  # large, and a comparison does without them
MIB = 2**20
PRESET = 1  # of xz: most of it is weights, which do not get smaller

HELP = """usage: python -m pipelines.bundle to=FOLDER [have=FILE] [python=3.12] [platform=...] [part_mib=60]

  to=...        a new folder for the parts and unpack.sh
  have=...      what `pip freeze` prints on the other machine, or package names alone: the rest is taken along
                (default: nothing is there)
  python=...    its Python (default: 3.12)
  platform=...  its glibc and processor (default: manylinux_2_28_x86_64)
  part_mib=...  no part is larger (default: 60)

There: sh unpack.sh FOLDER. Wheels are fetched here, with pip; MLflow and lm-eval are not taken along.
"""


@dataclass(frozen=True)
class Options:
    """The words of the command."""

    to: str = ""
    have: str = ""
    python: str = "3.12"
    platform: str = "manylinux_2_28_x86_64"
    part_mib: int = 60


def bundle(options: Options) -> None:
    """Collects, packs, and says what was taken along. Leaves nothing behind where it fails."""
    if not options.to:
        raise MethodError("to=... is missing: name the folder to be written, e.g. to=bundle")
    if options.part_mib < 1:
        raise MethodError(f"part_mib={options.part_mib} must be at least 1")
    folder, target = Path(options.to), Target(options.python, options.platform)
    if folder.exists():
        raise MethodError(f"to={folder}: exists already; name a new folder")
    have = read_have(Path(options.have)) if options.have else {}
    work = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "tree"
    try:
        copy_project(tree / "project")
        asked = [each for each in requirements() if each.name not in (*MODELS, *LEFT_OUT)]
        wheels = missing_wheels([*asked, *of_tests()], have, target, work / "wheels")
        (tree / "packages").mkdir()
        if wheels:
            install((wheel.path for wheel in wheels.values()), target, tree / "packages")
        for name in MODELS:
            copy_model(name, tree / "packages")
        for name, wheel in sorted(wheels.items()):
            instead = f" in place of {have[name]}" if name in have else ""
            sys.stdout.write(f"{name} {wheel.version}{instead}\n")
        for name in LEFT_OUT:
            if name not in have:
                sys.stdout.write(f"without {name}: {OPTIONAL[name]}\n")
        sizes = pack(tree, work / "parts", options.part_mib * MIB, target)
        (work / "parts").rename(folder)
    except OSError as error:
        raise MethodError(f"to={folder}: could not be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.stdout.write(
        f"{len(wheels)} packages and {len(MODELS)} models for Python {target.python}: {len(sizes)} parts in "
        f"{folder}, {sum(sizes) / MIB:.0f} MiB; there: sh unpack.sh FOLDER\n"
    )


def copy_project(to: Path) -> None:
    """The tracked files as they lie here, and the commit."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise MethodError(f"{ROOT} is no git checkout, whose files are what is taken along; start from a clone")
    for name in filter(None, listed.stdout.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)
    (to / COMMIT_FILE).write_text(git_sha() + "\n", encoding="utf-8")


def copy_model(name: str, to: Path) -> None:
    """An installed package of weights with its metadata; the encoder's weights in half precision."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MethodError(
            f"the package {name} that carries model weights is not installed; run `make setup`"
        ) from error
    for file in files:
        source = Path(str(file.locate()))
        if ".." in file.parts or file.suffix == ".pyc" or not source.exists():
            continue
        copy = to / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if name == ENCODER and file.suffix == ".safetensors":
            halve(source, copy)
        else:
            shutil.copyfile(source, copy)


def halve(source: Path, copy: Path) -> None:
    """safetensors in fp32 -> the same in fp16; they are read in fp32 again (methods.backbone.load_encoder)."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    save_file({k: v.half() if v.dtype is torch.float32 else v for k, v in tensors.items()}, copy, metadata=facts)


class _Parts(io.RawIOBase):
    """A stream that is written into part-000, part-001, ..., each of `part_bytes` at most."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.folder, self.part_bytes = folder, part_bytes
        self.sums: list[str] = []
        self.sizes: list[int] = []
        self._file: io.BufferedWriter | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        for start, end in self._cuts(len(data)):
            if self._file is None:
                self._file = (self.folder / f"part-{len(self.sizes):03d}").open("wb")
                self.sizes.append(0)
                self._digest = hashlib.sha256()
            self._file.write(data[start:end])
            self._digest.update(data[start:end])
            self.sizes[-1] += end - start
            if self.sizes[-1] == self.part_bytes:
                self.finish()
        return len(data)

    def _cuts(self, length: int) -> Iterator[tuple[int, int]]:
        """Pieces of so many bytes that end where a part does."""
        start = 0
        while start < length:
            taken = self.sizes[-1] if self._file is not None else 0
            end = min(length, start + self.part_bytes - taken)
            yield start, end
            start = end

    def finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.sums.append(self._digest.hexdigest())


def pack(tree: Path, folder: Path, part_bytes: int, target: Target) -> list[int]:
    """Writes the parts, their checksums and unpack.sh into a new folder; returns the parts' bytes."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    folder.mkdir()
    parts = _Parts(folder, part_bytes)
    with (
        lzma.open(cast(IO[bytes], parts), "wb", preset=PRESET) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for child in sorted(tree.iterdir()):
            archive.add(child, child.name, filter=anonymous)
    parts.finish()
    sums = "".join(f"{digest}  part-{number:03d}\n" for number, digest in enumerate(parts.sums))
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    num_bytes = sum(file.stat().st_blocks * 512 for file in tree.rglob("*"))
    said = UNPACK.read_text(encoding="utf-8").replace("@PYTHON@", target.python)
    said = said.replace("@MACHINE@", target.machine).replace("@KIB@", str(num_bytes // 1024))
    (folder / "unpack.sh").write_text(said, encoding="utf-8")
    return parts.sizes


def main() -> None:
    """The command."""
    main_with(Options, lambda: HELP, bundle)


if __name__ == "__main__":
    main()
