"""The configuration of a comparison: dataclass defaults, Hydra groups, and checks with clear sentences.

Hydra composes `conf/`, command-line words override; what leaves this file are the plain dataclasses of the
packages below, none of which knows Hydra.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from eval.arms import ARMS, LENDERS, NAMES
from eval.decided import contrasts_asked
from eval.lifecycle_plan import LifecycleOptions
from eval.looks import FIRST_LOOK
from eval.stats import StatsError
from methods.backbone import THINK_LM
from methods.decode import Sampling
from methods.registry import CONFIGS
from methods.train import LoraTrainConfig
from tasks.base import TaskData, TaskError
from tasks.dialogues import DialogueOptions
from tasks.examples import ExampleConfig
from tasks.registry import TASKS, load_task

T = TypeVar("T")


@dataclass
class TaskChoice:
    """Which task, and how much of it."""

    name: str = "regs"
    num_clauses: int = 0  # 0: all
    path: str | None = None  # task=local: the folder with the documents; task=hub/...: a local copy of the set
    num_asked: int | None = None  # task=synthetic: so many clauses are asked about, all are memories

    def load(self, seed: int) -> TaskData:
        """The task, or the seed's slice of it, with those of its own options that were set."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "num_clauses")}
        options = {key: value for key, value in own.items() if value is not None}
        return load_task(self.name, self.num_clauses or None, seed, **options)


@dataclass
class Evaluation:
    """What is measured, and how much of it."""

    name: str = "core"
    max_new_tokens: int = 192
    batch_size: int = 32  # dialogues generated together
    timed_questions: int = 40
    timed_rounds: int = 1
    arms: list[str] = field(default_factory=list)  # control arms beside run_methods; asked, but not timed
    ability: bool = False  # ordinary ability before and after each fit
    ability_items: int = 400  # of each local task: enough for H4's margin
    ability_tasks: list[str] = field(default_factory=list)  # lm-eval tasks by name, beside the local ones
    lifecycle: bool = False  # what it costs and breaks to change what was learnt


@dataclass
class CompareConfig:
    """Everything `python -m pipelines.compare` understands."""

    task: TaskChoice = field(default_factory=TaskChoice)
    evaluation: Evaluation = field(default_factory=Evaluation)
    preset: str = "laptop"
    model: str = THINK_LM
    device: str = "auto"
    dtype: str = "auto"  # of training; auto: bf16 where a probe finds it faster
    seed: int = 0
    seeds: int = 1  # how many seeds to run, from `seed` on; until=decided: at most
    until: str = ""  # decided: seeds one after another until every contrast is decided
    max_hours: float = 0.0  # until=decided: of wall time, all attempts together; 0: no limit
    contrasts: list[str] = field(
        default_factory=list
    )  # until=decided: e.g. [recall-sft,H2]; []: all pairs, and H2
    run_methods: list[str] = field(default_factory=lambda: ["recall", "sft", "rag"])
    # Fits side by side, each in a process of its own; 1: one after the other, in this one; 0: as many as there is
    # memory for, one a core at most
    fit_processes: int = 1
    fit_devices: int = 1  # GPUs (or processes, on a CPU) that share each fit; the fit is the same
    log_level: str = "warning"  # of methods: info shows tests of an epoch, debug candidates and samples too
    runs_dir: str = "runs"
    fresh: bool = False  # a new run, with fits of its own, though one that was cut, or the same fits, are there
    mlflow: bool = True
    train: Any = field(default_factory=lambda: default_of(LoraTrainConfig))
    examples: Any = field(default_factory=lambda: default_of(ExampleConfig))
    sampling: Any = field(default_factory=lambda: default_of(Sampling))
    dialogues: Any = field(default_factory=lambda: default_of(DialogueOptions))
    lifecycle: Any = field(default_factory=lambda: default_of(LifecycleOptions))
    methods: Any = field(default_factory=lambda: {name: default_of(kind) for name, kind in CONFIGS.items()})


def default_of(kind: type) -> dict[str, Any]:
    """A config dataclass's defaults as plain nested values."""
    return _plain(kind())


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A frozen dataclass from plain values. Raises TaskError naming an unknown key or a wrong type."""
    if not isinstance(values, Mapping):
        raise TaskError(f"{where}={values!r}: is a group of settings, not one; set {where}.<name>=... instead")
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise TaskError(f"{where}.{key}: no such setting; choose from: {', '.join(sorted(known))}")
        hint = hints[key]
        if is_dataclass(hint):
            value = build(hint, value, f"{where}.{key}")  # type: ignore[arg-type]
        elif get_origin(hint) is tuple:
            item = get_args(hint)[0]
            if not isinstance(value, list) or any(type(x) is not item for x in value):
                raise TaskError(f"{where}.{key}={value!r} is not a list of {item.__name__}, e.g. [a,b]")
            value = tuple(value)
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif hint in (int, float, bool, str) and type(value) is not hint:
            raise TaskError(f"{where}.{key}={value!r} is not of type {hint.__name__}")
        arguments[key] = value
    return kind(**arguments)


@dataclass(frozen=True)
class Resolved:
    """A checked configuration in the types of the packages below."""

    raw: dict[str, Any]
    task: TaskChoice
    evaluation: Evaluation
    train: LoraTrainConfig
    examples: ExampleConfig
    sampling: Sampling
    dialogues: DialogueOptions
    lifecycle: LifecycleOptions
    method_configs: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """Arms of the evaluation that run beside run_methods: not those that bound a method which does not run."""
        wanted = [name for name in dict.fromkeys(self.evaluation.arms) if name not in self.run_methods]
        return [name for name in wanted if LENDERS.get(name) in (None, *self.run_methods)]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.raw[name]
        except KeyError:
            raise AttributeError(name) from None


UNTIL = ("", "decided")
LOG_LEVELS = ("debug", "info", "warning")
AT_LEAST_ONE = (
    "seeds",
    "fit_devices",
    "evaluation.max_new_tokens",
    "evaluation.batch_size",
    "evaluation.timed_rounds",
    "train.batch_tokens",
    "train.gradient_accumulation_steps",
    "train.lora_rank",
    "methods.rag.top_k",
)


def _check_at_least_one(config: DictConfig) -> None:
    """Counts that would else fail in the middle of a run."""
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(config, key)
        if isinstance(value, int) and value < 1:
            raise TaskError(f"{key}={value} must be at least 1")
    if config.fit_processes < 0:
        raise TaskError(
            f"fit_processes={config.fit_processes} must be at least 1, or 0 for as many as there is room"
        )


def _check_until(values: Mapping[str, Any]) -> None:
    """What until=decided needs, and what means nothing without it."""
    if values["until"] not in UNTIL:
        raise TaskError(f"until={values['until']}: no such end; choose from: decided")
    if not values["until"]:
        for name in ("max_hours", "contrasts"):
            if values[name]:
                raise TaskError(
                    f"{name}={values[name]} means nothing without until=decided; add it or leave both out"
                )
        return
    if values["max_hours"] < 0:
        raise TaskError(f"max_hours={values['max_hours']} must be above 0, or 0 for no limit")
    if values["seeds"] < FIRST_LOOK:
        raise TaskError(
            f"seeds={values['seeds']} does not suffice for one look: with until=decided it is the most slices "
            f"that are measured, and the first look takes {FIRST_LOOK}; leave it out (16) or raise it"
        )
    try:
        if not contrasts_asked(values["contrasts"], values["run_methods"]):
            raise TaskError(
                f"until=decided: run_methods={values['run_methods']} leaves nothing to decide; name two or more"
            )
    except StatsError as error:
        raise TaskError(str(error)) from error


def _check_methods(names: Sequence[str]) -> None:
    """Raises TaskError for an unknown, repeated or missing name."""
    if not names:
        raise TaskError(f"run_methods is empty; choose from: {', '.join(NAMES)}")
    for name in names:
        if name not in NAMES:
            raise TaskError(f"run_methods: no method is called {name!r}; choose from: {', '.join(NAMES)}")
    if len(set(names)) != len(names):
        raise TaskError(f"run_methods names a method twice: {', '.join(names)}")


def resolve(config: DictConfig) -> Resolved:
    """Checks names and types before anything is loaded or written."""
    raw = OmegaConf.to_container(config, resolve=True)
    assert isinstance(raw, dict)
    values: dict[str, Any] = {str(k): v for k, v in raw.items()}
    known = {f.name for f in fields(CompareConfig)}
    for key in known.symmetric_difference(values):
        said = "no such setting" if key in values else "cannot be taken away"
        raise TaskError(f"{key}: {said}; the settings are: {', '.join(sorted(known))}")
    _check_methods(values["run_methods"])
    for name in values["evaluation"]["arms"]:
        if name not in ARMS:
            raise TaskError(f"evaluation.arms: {name!r} is no control arm; choose from: {', '.join(ARMS)}")
    if values["task"]["name"] not in TASKS:
        raise TaskError(f"task={values['task']['name']}: no such task; choose from: {', '.join(sorted(TASKS))}")
    if values["log_level"] not in LOG_LEVELS:
        raise TaskError(f"log_level={values['log_level']}: no such level; choose from: {', '.join(LOG_LEVELS)}")
    _check_at_least_one(config)
    _check_until(values)
    return Resolved(
        raw=values,
        task=TaskChoice(**values["task"]),
        evaluation=Evaluation(**values["evaluation"]),
        train=build(LoraTrainConfig, values["train"], "train"),
        examples=build(ExampleConfig, values["examples"], "examples"),
        sampling=build(Sampling, values["sampling"], "sampling"),
        dialogues=build(DialogueOptions, values["dialogues"], "dialogues"),
        lifecycle=build(LifecycleOptions, values["lifecycle"], "lifecycle"),
        method_configs={
            name: build(kind, values["methods"][name], f"methods.{name}") for name, kind in CONFIGS.items()
        },
    )


NO_SETTINGS = ("data_version", "model_version", "ablation")  # what config.json holds beside settings


def saved_config(folder: Path, overrides: Sequence[str] = ()) -> Resolved:
    """The configuration that a run folder was made with; overrides: words such as `train.max_tokens=1000`.

    Settings that are younger than the run take their defaults.
    """
    text = (folder / "config.json").read_text(encoding="utf-8")
    raw = json.loads(text)
    if "${" in text:  # would be replaced, by a variable of this machine's environment if it says so
        raise TaskError("a setting holds ${...}, which no run writes")
    settings = OmegaConf.create({key: value for key, value in raw.items() if key not in NO_SETTINGS})
    schema = OmegaConf.structured(CompareConfig)
    changed = OmegaConf.merge(schema, settings, OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(changed, DictConfig)
    return resolve(changed)


def register() -> None:
    """Makes the schema known to Hydra; conf/compare.yaml builds on it."""
    ConfigStore.instance().store(name="schema", node=CompareConfig)
