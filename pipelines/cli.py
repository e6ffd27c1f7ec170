"""How every command starts and fails: Hydra composes, errors a user can cause are one sentence, status 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")
CONF = Path(__file__).resolve().parent / "conf"


def fail(message: str) -> None:
    """Prints one sentence to the error stream and leaves with status 2."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(2)


_PATH = re.compile(r"(?:task\.)?path=(?P<path>.*)", re.DOTALL)


def spelled_out(word: str) -> str:
    """`path=my docs (2)` as Hydra wants it: `task.path='my docs (2)'`; other words as they are."""
    match = _PATH.fullmatch(word)
    if match is None or match["path"][:1] in ("'", '"'):
        return word
    # Hydra takes backslashes as they are, but for those before a quote: these are written twice.
    quoted = re.sub(r"(\\*)'", r"\1\1\'", match["path"])
    quoted = re.sub(r"(\\+)$", r"\1\1", quoted)
    return f"task.path='{quoted}'"


def for_hydra(words: list[str]) -> list[str]:
    """The words as Hydra wants them; of one that names no setting it makes an AssertionError."""
    nameless = [word for word in words if re.match(r"[+~]*[=@]|[+~]+$", word)]
    if nameless:
        fail(f"{nameless[0]!r} names no setting; write it as setting=value")
    return [spelled_out(word) for word in words]


def one_run(words: list[str]) -> list[str]:
    """`--multirun seed=0,1,2` is `seed=0 seeds=3` here: one run in which the seeds are aggregated."""
    kept = [word for word in words if word not in ("-m", "--multirun")]
    if kept == words:
        return words
    swept = [word for word in kept if re.fullmatch(r"seed=\d+(,\d+)*", word)]
    seeds = sorted({int(seed) for word in swept for seed in word.removeprefix("seed=").split(",")})
    if len(swept) != 1 or seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        fail("--multirun goes over seeds that follow each other, in one word, e.g. --multirun seed=0,1,2")
    if any(word.startswith("seeds=") for word in kept):
        fail("--multirun and seeds=... both say how many seeds to run; leave one of them out")
    return [*(word for word in kept if word not in swept), f"seed={seeds[0]}", f"seeds={len(seeds)}"]


def launches(words: list[str]) -> bool:
    """Whether Hydra is to start a run a seed, here or on a cluster, in place of one run over all seeds."""
    return any(word.startswith("hydra/launcher=") for word in words)


def launch(name: str, words: list[str], run: Callable[[Any], None]) -> None:
    """`--multirun seed=0,1,2 hydra/launcher=...`: runs of their own, for `pipelines.report runs=...`.

    Any launcher that Hydra knows: basic (one after the other), joblib (side by side), submitit (a cluster).
    """
    import hydra
    from hydra.errors import HydraException

    from pipelines.config import register

    def one(config: Any) -> None:
        from pipelines.progress import quiet_libraries

        quiet_libraries()
        guarded(lambda: run(config))

    one_run([word for word in words if not launches([word])])  # the same words are right or wrong for both
    register()
    sys.argv[1:] = for_hydra(words)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors itself, in many lines
    try:
        hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")(one)()
    except (HydraException, OmegaConfBaseException, *_UNREAD) as error:
        fail(_sentence(error, words))


def compose_config(name: str, overrides: list[str]) -> Any:
    """The configuration from conf/<name>.yaml and command-line words; `path=` is short for `task.path=`."""
    overrides = for_hydra(overrides)
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from pipelines.config import register

    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, overrides)
    except (HydraException, OmegaConfBaseException, *_UNREAD) as error:
        unknown = re.search(r"Could not override '([^']+)'|\nKey '([^']+)' not in", str(error))
        fail(_unknown_key(name, unknown.group(1) or unknown.group(2)) if unknown else _sentence(error, overrides))


_UNREAD = (ValueError, TypeError, AssertionError)  # what Hydra ends in over words that it does not expect: task=2
_NOISE = ("full_key", "object_type", "reference_type", "Set the environment", "Config search path", "provider=")


def _sentence(error: Exception, words: list[str]) -> str:
    """Hydra's message and its causes on one line, without its hints for programmers."""
    if type(error) in _UNREAD:  # Hydra's and OmegaConf's own descend from them
        return f"one of these words cannot be read ({error}): {' '.join(words)}; see --help"
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines += [line.strip() for line in str(cause).splitlines()]
        cause = cause.__cause__
    return " ".join(line for line in dict.fromkeys(lines) if line and not line.startswith(_NOISE))


def _unknown_key(name: str, key: str) -> str:
    """Names the first unknown part of a dotted key and what could stand there."""
    node: Any = compose_config(name, [])
    known: list[str] = []
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            choices = ", ".join(sorted(map(str, node))) if isinstance(node, Mapping) else "no setting below it"
            return f"{'.'.join([*known, part])}: no such setting; choose from: {choices}"
        known.append(part)
        node = node[part]
    return f"{key}: cannot be set like this"


HELP = """usage: python -m pipelines.{name} [key=value ...]

  task=...         {tasks}
  path=...         task=local: the folder with your documents (look first: python -m tasks.check path=...)
  preset=...       {presets}
  evaluation=...   {evaluations}
  run_methods=...  a list, e.g. run_methods=[recall,rag], of: {methods};
                   recall_quoted takes the settings of recall, rag_direct those of rag
  model=...        {packaged} or {think} (packaged, the second taught to think and read),
                   {tiny} (random, for tests), a folder, or a Hub id
  seed=0 seeds=1 (or --multirun seed=0,1,2) device=auto dtype=auto mlflow=true runs_dir=runs
  until=decided max_hours=8 contrasts=[recall-sft,H2]   seeds one after another until every contrast is decided
                   ([]: all pairs of methods, and H2); seeds=... is then the most, 16 by default
  --multirun seed=0,1,2 hydra/launcher=...   a run a seed: basic here; joblib or submitit_slurm with Hydra's
                   plugins; then python -m pipelines.report runs=...

Everything else that can be set, with its default (e.g. methods.rag.top_k=5):

{config}"""


def show_help(name: str, extra: str = "") -> None:
    """Prints what can be set. extra: lines on words of the command's own."""
    from omegaconf import OmegaConf

    from eval.arms import NAMES
    from methods.backbone import PACKAGED_LM, THINK_LM, TINY
    from tasks.registry import TASKS

    def choices(group: str) -> str:
        return ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))

    text = HELP.format(
        name=name,
        tasks=", ".join(sorted(TASKS)),
        presets=choices("preset"),
        evaluations=choices("evaluation"),
        methods=", ".join(NAMES),
        packaged=PACKAGED_LM,
        think=THINK_LM,
        tiny=TINY,
        config=OmegaConf.to_yaml(compose_config("compare", [])),
    )
    sys.stdout.write(extra + text)


def asks_for_help(words: list[str]) -> bool:
    """Whether the command line wants to know what it could say."""
    return any(word in ("-h", "--help") for word in words)


def main_of(name: str, run: Callable[[Any], None]) -> None:
    """Runs a command that Hydra configures, as `guarded` does."""
    from pipelines.progress import quiet_libraries

    words = sys.argv[1:]
    if asks_for_help(words):
        show_help(name)
        return
    if launches(words):
        launch(name, words, run)
        return
    config = compose_config(name, one_run(words))
    quiet_libraries()
    guarded(lambda: run(config))


def main_with(kind: type[T], help_text: Callable[[], str], run: Callable[[T], None]) -> None:
    """Runs a command whose words are the fields of the dataclass `kind`, as `guarded` does."""
    words = sys.argv[1:]
    if asks_for_help(words):
        sys.stdout.write(help_text())
        return
    options = options_of(kind, words)
    guarded(lambda: run(options))


def guarded(run: Callable[[], None]) -> None:
    """What a user can put right becomes one sentence and status 2; Ctrl-C becomes status 130."""
    from pipelines.faults import sentence_of

    try:
        run()
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        fail(sentence)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\ninterrupted: the run folder says what was finished; the same command goes on from there\n"
        )
        raise SystemExit(130) from None


def options_of(kind: type[T], words: list[str]) -> T:
    """`key=value` words -> the dataclass `kind`, whose fields are str, int or bool; `--web` stands for web=true.

    A path may hold any character, so nothing in a value is special. Leaves with status 2 on a wrong word.
    """
    known: dict[str, Any] = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if key not in known:
            fail(f"{word}: no such setting; choose from: {', '.join(f'{name}=...' for name in known)}")
        default = known[key]
        if not equals and word.startswith("--") and isinstance(default, bool):
            value = "true"
        if not value:
            fail(f"{word}: a value is missing, e.g. {key}={str(default).lower() or '...'}")
        if isinstance(default, bool):
            if value not in ("true", "false"):
                fail(f"{word}: is neither true nor false")
            given[key] = value == "true"
        elif isinstance(default, int):
            if not re.fullmatch(r"-?\d{1,9}", value):
                fail(f"{word}: is not a whole number")
            given[key] = int(value)
        else:
            given[key] = value
    return kind(**given)
