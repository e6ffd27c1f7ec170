"""`recall_written`: a portable recall adapter, and a fit that is writing alone.

The adapter is trained once, on the general corpus: its reading passages take the place of clauses, so the
model learns to recall, to decode a vector and to answer from what it decoded, on texts that have nothing to
do with the rulebook. After that no weight changes: the rulebook's clauses are written as vectors
(`methods.recall.writing`), cued or not. How far that gets is what the comparison measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from methods.base import MethodError
from methods.examples import reading_examples
from methods.recall.calibrated import MixtureConfig
from methods.recall.method import RecallConfig, RecallMethod, StageLogs
from methods.recall.writing import WriteConfig
from methods.setup import MethodSetup
from tasks.base import QA, Conversation, Memory


@dataclass(frozen=True)
class WrittenRecallConfig(RecallConfig):
    """The calibrated recipe on general passages, then writing."""

    mixture: MixtureConfig = field(default_factory=lambda: MixtureConfig(memory_front=1.25))
    num_general: int = 36  # passages that the adapter is trained on
    write: WriteConfig = field(default_factory=lambda: WriteConfig(max_steps=300))


def general_memories(sft: Sequence[Conversation], limit: int) -> list[Memory]:
    """Reading passages as memories, their questions as cues; passages with the most questions first."""
    cues: dict[str, list[QA]] = {}
    texts: dict[str, str] = {}
    for n, example in enumerate(reading_examples(sft)):
        texts[example.memory_id] = example.clause
        question = example.messages[-1].content
        cue = QA(f"general/{n}", question, example.answer, (example.memory_id,), think=example.reasoning)
        cues.setdefault(example.memory_id, []).append(cue)
    chosen = sorted(texts, key=lambda memory_id: -len(cues[memory_id]))[:limit]
    return [Memory(f"general/{n}", texts[i], cues=tuple(cues[i])) for n, i in enumerate(chosen)]


class WrittenRecallMethod(RecallMethod):
    """`RecallMethod` whose weights never see the rulebook."""

    def __init__(
        self, setup: MethodSetup, config: WrittenRecallConfig | None = None, name: str = "recall_written"
    ) -> None:
        self.written_config = config or WrittenRecallConfig()
        super().__init__(setup, self.written_config, name)

    def _train(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> StageLogs:
        general = general_memories(sft, self.written_config.num_general)
        if not general:
            raise MethodError(f"{self.name}: the SFT corpus holds no reading passages to train the adapter on")
        taken = {memory.text for memory in general}  # what is learnt as a memory is no reading passage as well
        logs = super()._train(general, [c for c in sft if c.passage not in taken])
        self._bank().forget([m.id for m in general])  # before new keys are kept apart from the bank's
        report = self.write(memories)
        notes = {
            "write_s": report.seconds,
            "write_tokens": float(report.trained_tokens),
            "write_steps": float(sum(report.steps.values())),
            "written": float(report.num_memories),
            "written_exact": float(len(report.exact)),
        }
        return StageLogs(logs.step1, logs.step2, {**logs.notes, **notes}, report.trained_tokens)
