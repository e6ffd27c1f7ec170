"""A bundle holds what the other machine lacks and no more, unpacks to the same bytes, refuses in a sentence."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file

from methods.base import MethodError
from pipelines import bundle, packages, passes, report, wheels
from pipelines.bundle import Options, halve, pack
from pipelines.log_runs import status_at_end
from pipelines.packages import OPTIONAL, ROOT, TESTS, of_tests, requirements
from pipelines.wheels import Target, missing_wheels, read_have
from reports.base import ReportError

PYTHON = "{}.{}".format(*sys.version_info[:2])
HERE = Target(PYTHON, "manylinux_2_28_x86_64")
THERE = Target("3.12", "manylinux_2_28_x86_64")
PART_BYTES, NOISE_BYTES = 2**17, 300_000


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", *facts: str) -> None:
    """A wheel of one empty module. facts: further lines of its METADATA."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    pure = str(tag.endswith("-any")).lower()
    body = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *facts, ""]
        ),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n",
    }
    record = "".join(f"{file},,\n" for file in (*body, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for file, text in {**body, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for all that there is to be had."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetched(
    tmp_path: Path, asked: str, have: Mapping[str, str | None] | None = None, target: Target = THERE
) -> dict[str, str]:
    found = missing_wheels([Requirement(asked)], have or {}, target, tmp_path / "fetched")
    assert sorted(wheel.path for wheel in found.values()) == sorted((tmp_path / "fetched").rglob("*.whl"))
    return {name: wheel.version for name, wheel in found.items()}


def test_what_is_there_already_is_not_taken_and_not_followed(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "a", "1.0", "py3-none-any", "Requires-Dist: b>=1", "Requires-Dist: c")
    make_wheel(index, "b", "2.0", "py3-none-any", "Requires-Dist: nowhere")
    make_wheel(index, "c", "1.0")
    assert fetched(tmp_path, "a", {"b": "1.5", "c": None}) == {"a": "1.0"}


def test_a_version_that_will_not_do_is_replaced(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "a", "1.0", "py3-none-any", "Requires-Dist: b>=2")
    make_wheel(index, "b", "2.0")
    assert fetched(tmp_path, "a", {"b": "1.5"}) == {"a": "1.0", "b": "2.0"}


def test_what_two_ask_for_suits_both(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "a", "1.0", "py3-none-any", "Requires-Dist: c", "Requires-Dist: b")
    make_wheel(index, "b", "1.0", "py3-none-any", "Requires-Dist: c<2")
    make_wheel(index, "c", "1.0")
    make_wheel(index, "c", "2.0")
    assert fetched(tmp_path, "a") == {"a": "1.0", "b": "1.0", "c": "1.0"}


def test_markers_and_extras_are_read_for_the_other_machine(tmp_path: Path, index: Path) -> None:
    older, newer = (
        f"Requires-Dist: {name}; python_version {sign} '3.14'" for name, sign in (("old", "<"), ("new", ">="))
    )
    make_wheel(index, "a", "1.0", "py3-none-any", older, newer, "Requires-Dist: b[fast]")
    make_wheel(
        index,
        "b",
        "1.0",
        "py3-none-any",
        "Requires-Dist: quick; extra == 'fast'",
        "Requires-Dist: d; extra == 'x'",
    )
    for name in ("old", "new", "quick"):
        make_wheel(index, name, "1.0")
    assert fetched(tmp_path, "a").keys() == {"a", "b", "old", "quick"}
    shutil.rmtree(tmp_path / "fetched")
    assert fetched(tmp_path, "a", target=Target("3.14", HERE.platform)).keys() == {"a", "b", "new", "quick"}


def test_the_wheel_is_that_of_its_python_and_platform(tmp_path: Path, index: Path) -> None:
    for tag in ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_39_x86_64"):
        make_wheel(index, "a", "2.0", tag)
    with pytest.raises(MethodError, match=r"no wheel of a for Python 3.12 on manylinux_2_28_x86_64"):
        fetched(tmp_path, "a")
    shutil.rmtree(tmp_path / "fetched")
    make_wheel(index, "a", "1.0", "cp312-cp312-manylinux_2_17_x86_64")
    assert fetched(tmp_path, "a") == {"a": "1.0"}


@pytest.mark.parametrize(
    ("line", "name", "version"),
    [
        ("torch==2.11.0+cu130", "torch", "2.11.0+cu130"),
        ("Foo_Bar @ file:///tmp/foo", "foo-bar", None),
        ("numpy", "numpy", None),
        ("numpy==2.4.6  # a remark", "numpy", "2.4.6"),
    ],
)
def test_lines_of_pip_freeze(tmp_path: Path, line: str, name: str, version: str | None) -> None:
    (tmp_path / "have.txt").write_text(f"# here\n-e git+x#egg=y\n\n{line}\n", encoding="utf-8")
    assert read_have(tmp_path / "have.txt") == {name: version}


def test_every_optional_package_is_asked_for_and_a_comparison_imports_none_of_them() -> None:
    """In a process in which they cannot be imported the whole way from words to reports is."""
    asked = {requirement.name for requirement in requirements()}
    assert set(OPTIONAL) <= asked
    modules = {"lm-eval": "lm_eval", "python-docx": "docx"}
    needed_by_rich = "markdown-it-py"
    blocked = [modules.get(name, name.replace("-", "_")) for name in OPTIONAL if name != needed_by_rich]
    lines = [
        "import sys",
        *(f"sys.modules[{name!r}] = None" for name in blocked),
        "import pipelines.compare, pipelines.ablate, pipelines.footprint, pipelines.fit_processes",
        "import pipelines.report, reports.terminal, pipelines.packages",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


def test_a_run_without_lm_eval_says_once_that_ability_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.metadata, "distribution", absent)
    said: list[str] = []
    left_out: dict[str, str] = {}
    run: Any = SimpleNamespace(left_out=left_out, leave_out=left_out.__setitem__)
    nothing: Any = None
    for _ in range(2):
        passes.measure_ability(nothing, run, [], nothing, 0, nothing, cast(Any, SimpleNamespace(say=said.append)))
    assert said == [f"left out: {left_out['ability']}"] and "lm-eval is not installed" in said[0]


def test_what_the_tests_run_with_goes_along() -> None:
    """benchmarks/gpu.py runs those marked `cuda` where it is unpacked."""
    assert sorted(requirement.name for requirement in of_tests()) == sorted(TESTS)


def absent(name: str) -> None:
    raise PackageNotFoundError(name)


def test_a_run_without_mlflow_says_so_and_a_report_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.metadata, "distribution", absent)
    said: list[str] = []
    assert not packages.logs_to_mlflow(True, said.append)
    assert len(said) == 1 and "MLflow is not installed" in said[0]
    assert not packages.logs_to_mlflow(False, said.append) and len(said) == 1
    assert status_at_end(True) == "unlogged"  # it waits for `pipelines.report --log`, where MLflow is
    assert status_at_end(False) == "finished"
    with pytest.raises(ReportError, match="MLflow is not installed"):
        report.report_and_show(report.Options(mlflow=True))


# Packing and unpacking


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What unpack.sh needs of a bundle, and some weights that no compression makes smaller."""
    folder = tmp_path_factory.mktemp("bundle") / "tree"
    for name in ("pyproject.toml", "pipelines/__init__.py", "pipelines/packages.py"):
        (folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "project" / name)
    (folder / "packages" / "weights").mkdir(parents=True)
    (folder / "packages" / "weights" / "noise.bin").write_bytes(os.urandom(NOISE_BYTES))
    return folder


@pytest.fixture(scope="module")
def packed(tree: Path) -> Path:
    folder = tree.parent / "parts"
    sizes = pack(tree, folder, PART_BYTES, HERE)
    assert [file.stat().st_size for file in sorted(folder.glob("part-*"))] == sizes
    assert sizes[:-1] == [PART_BYTES] * 2 and 0 < sizes[-1] <= PART_BYTES
    return folder


@pytest.fixture
def parts(packed: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(packed, tmp_path / "parts")
    return tmp_path / "parts"


def unpack(parts: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = ["sh", str(parts / "unpack.sh"), str(target)]
    env = clean | {"PYTHON": sys.executable} | environment
    return subprocess.run(words, capture_output=True, text=True, env=env, check=False)


def refused(parts: Path, target: Path, **environment: str) -> str:
    """The sentence; nothing may be left where the bundle was to go."""
    before = sorted(target.parent.iterdir())
    done = unpack(parts, target, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert sorted(target.parent.iterdir()) == before
    return line


def test_it_unpacks_to_the_same_bytes_and_again_to_nothing_new(tree: Path, parts: Path, tmp_path: Path) -> None:
    target = tmp_path / "with a space" / "there"
    done = unpack(parts, target)
    assert done.returncode == 0, done.stderr
    assert "all that a comparison needs is here" in done.stdout
    packed = {file.relative_to(tree): file.read_bytes() for file in tree.rglob("*") if file.is_file()}
    assert {name: (target / name).read_bytes() for name in packed} == packed
    assert "HF_HUB_OFFLINE=1" in (target / "env.sh").read_text(encoding="utf-8")
    (target / "kept").touch()
    assert unpack(parts, target).returncode == 0
    assert (target / "kept").exists()
    where = f'. "{target}/env.sh"; "{sys.executable}" -c "import pipelines; print(pipelines.__path__)"'
    found = subprocess.run(["sh", "-c", where], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert str(target / "project") in found


def test_a_missing_part(parts: Path, tmp_path: Path) -> None:
    (parts / "part-001").unlink()
    assert "part-001 is missing" in refused(parts, tmp_path / "there")


def test_a_missing_list_of_checksums(parts: Path, tmp_path: Path) -> None:
    (parts / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in refused(parts, tmp_path / "there")


def test_a_damaged_part(parts: Path, tmp_path: Path) -> None:
    with (parts / "part-002").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    assert "part-002 is damaged" in refused(parts, tmp_path / "there")


def test_another_python(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "parts", PART_BYTES, Target("3.99", HERE.platform))
    said = refused(tmp_path / "parts", tmp_path / "there")
    assert "for Python 3.99" in said and f"is {PYTHON}" in said


def test_no_python(parts: Path, tmp_path: Path) -> None:
    assert "no-such-python does not start" in refused(parts, tmp_path / "there", PYTHON="no-such-python")


def test_another_processor(tree: Path, tmp_path: Path) -> None:
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    pack(tree, tmp_path / "parts", PART_BYTES, Target(PYTHON, f"manylinux_2_28_{other}"))
    assert f"for {other}" in refused(tmp_path / "parts", tmp_path / "there")


def test_less_room_than_it_takes(parts: Path, tmp_path: Path) -> None:
    script = parts / "unpack.sh"
    (needed,) = {
        word
        for line in script.read_text().splitlines()
        if "-ge" in line
        for word in line.split()
        if word.isdigit()
    }
    assert int(needed) * 1024 >= NOISE_BYTES
    free = shutil.disk_usage(tmp_path).free // 1024
    script.write_text(script.read_text().replace(needed, str(2 * free)))
    assert "are free there" in refused(parts, tmp_path / "there")


def test_writing_that_fails_half_way_leaves_nothing(parts: Path, tmp_path: Path) -> None:
    """No file may get as large as the weights, as if the disk were full by then."""
    words = f'ulimit -f 128; exec sh "{parts}/unpack.sh" "{tmp_path}/there"'
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHON": sys.executable}
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1 and "nothing was left there" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts"]


def test_a_folder_that_holds_something_else(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "holds something else" in refused(parts, tmp_path / "there")


def test_checksums_are_those_that_sha256sum_reads(parts: Path) -> None:
    lines = (parts / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert lines == [
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}" for f in sorted(parts.glob("part-*"))
    ]


def test_half_precision_halves_the_weights_alone(tmp_path: Path) -> None:
    weights = {"w": torch.randn(64, 64), "ids": torch.arange(8)}
    save_file(weights, tmp_path / "a.safetensors", metadata={"format": "pt"})
    halve(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    found = load_file(tmp_path / "b.safetensors")
    assert found["w"].dtype is torch.float16 and found["ids"].equal(weights["ids"])
    assert torch.allclose(found["w"].float(), weights["w"], rtol=1e-3, atol=1e-4)


# The command's words

BAD_WORDS = [
    ({"to": ""}, "to=... is missing"),
    ({"part_mib": 0}, "part_mib=0 must be at least 1"),
    ({"python": "3.9"}, "python=3.9"),
    ({"python": "three"}, "python=three"),
    ({"platform": "win_amd64"}, "platform=win_amd64"),
    ({"platform": "manylinux_2_28_riscv64"}, "platform=manylinux_2_28_riscv64"),
    ({"have": "no-such-file"}, "have=no-such-file: cannot be read"),
]


@pytest.mark.parametrize(("words", "said"), BAD_WORDS, ids=[said for _, said in BAD_WORDS])
def test_wrong_words_leave_nothing(tmp_path: Path, words: dict[str, str], said: str) -> None:
    with pytest.raises(MethodError) as error:
        bundle.bundle(Options(**{"to": str(tmp_path / "made"), **words}))  # type: ignore[arg-type]
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "have.txt").write_text("numpy==2.4.6\ntorch  2.11.0\n", encoding="utf-8")
    with pytest.raises(MethodError, match=r"have.txt:2: 'torch  2.11.0' is no line of `pip freeze`"):
        read_have(tmp_path / "have.txt")


def test_a_folder_that_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(MethodError, match="exists already"):
        bundle.bundle(Options(to=str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_no_network_and_no_room_leave_nothing(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MethodError, match="no wheel of "):
        bundle.bundle(Options(to=str(tmp_path / "made")))
    with pytest.raises(MethodError, match="could not be written"):
        bundle.bundle(Options(to="/proc/made"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index"]


def test_the_command_ends_with_status_2(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipelines.bundle", f"to={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "exists already" in done.stderr


def test_wheels_are_laid_out_as_they_are_imported_from(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "a", "1.0", "cp312-abi3-manylinux_2_17_x86_64")
    wheels.install(index.glob("*.whl"), THERE, tmp_path / "site")
    assert (tmp_path / "site" / "a.py").exists() and (tmp_path / "site" / "a-1.0.dist-info").is_dir()
    make_wheel(index, "b", "1.0", "cp311-cp311-manylinux_2_17_x86_64")
    with pytest.raises(MethodError, match="could not be laid out"):
        wheels.install(index.glob("b-*.whl"), THERE, tmp_path / "other")
