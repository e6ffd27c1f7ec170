"""A folder of Chinese documents is asked, and abstains, in Chinese."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.base import NO_CLAUSE
from tasks.chinese import has_chinese, is_chinese
from tasks.dialogues import build_dialogues
from tasks.documents.cutting import Clause, cut
from tasks.documents.form import Passage, Section
from tasks.handbook import stands_in
from tasks.local import read
from tasks.registry import load_task
from tasks.rule_questions import RuleQuestions, facts
from tasks.self_cues import self_made_questions
from tasks.validate import nearly_equal, problems

TEXT = """# 住户守则

## 餐费，里斯本

里斯本的员工每天领取31欧元餐费。单据须在5个工作日内交给鲁伊·马托斯，并在办公室档案里保存6年。

## 餐费，科克

科克的员工每天领取27欧元餐费。单据须在5个工作日内交给诺拉·戴利，并在办公室档案里保存4年。

## 洗衣房

洗衣房早上6:40开门，共有9台洗衣机；代币每枚3欧元，在艾达·伦德的服务台购买。

## 自行车

自行车最多可以在B地下室停放14天，遗失钥匙须用表格K17报告，罚款为押金的20%。
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "守则.md").write_text(TEXT, encoding="utf-8")
    return tmp_path


def test_questions_are_made_from_chinese_text(folder: Path) -> None:
    task = read(str(folder)).task
    assert (task.language, task.machine_made, problems(task)) == ("zh", True, [])
    assert {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids} == {
        memory.id for memory in task.memories
    }
    (amount,) = [qa for qa in task.questions if (qa.slot, qa.answer) == ("欧元", "31欧元") and qa.split == "test"]
    assert amount.rivals == ("27欧元",)
    assert any("in English" in note for note in task.notes)


def test_everything_about_the_documents_is_said_in_chinese(folder: Path) -> None:
    task = read(str(folder)).task
    abstentions = [c for c in task.sft if c.kind == "unanswerable"]
    think, answer = NO_CLAUSE["zh"]
    assert len(abstentions) > 20
    assert {c.messages[-1].content for c in abstentions} == {f"<think>\n{think}\n</think>\n{answer}"}
    asked = [c.messages[0].content for c in abstentions] + [qa.question for qa in task.questions]
    asked += [t.user for d in build_dialogues(task, 0) for t in d.turns if t.kind not in ("filler", "ordinary")]
    assert any(question.startswith("那么，科克") for question in asked)
    assert [question for question in asked if not is_chinese(question)] == []


def test_an_english_folder_with_a_chinese_name_in_it_stays_english(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Desk\n\nThe desk of 王小明 opens at 6:40 and closes at 18:15 on weekdays.\n")
    task = read(str(tmp_path)).task
    assert task.language == "en" and task.notes[1:] == ()
    assert not any(has_chinese(c.messages[-1].content) for c in task.sft)


def test_near_misses_are_found_without_blanks_between_words() -> None:
    """The packaged handbook's families from its texts alone: most of them, and no other clause among them."""
    memories = load_task("regs_zh").memories
    rows = [Section("a", m.title, (Passage(m.text, 1),), "line", m.id) for m in memories]
    family = {memory.id: memory.family for memory in memories}
    groups: dict[str, list[str]] = {}
    for clause in cut(rows).clauses:
        if clause.family:
            groups.setdefault(clause.family, []).append(clause.id)
    assert [ids for ids in groups.values() if len({family[i] for i in ids}) > 1] == []
    whole = sum(len(ids) == 3 for ids in groups.values())
    assert whole >= 0.8 * len(set(family.values()))


def test_training_never_asks_a_machine_made_question(folder: Path) -> None:
    task = read(str(folder)).task
    for memory in task.memories:
        trained = self_made_questions(memory, limit=99)
        assert trained
        own = [qa.question for qa in task.questions if qa.memory_ids == (memory.id,)]
        assert not [(one, two) for one in own for two in trained if nearly_equal(one, two)]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("门禁在晚上22:15关闭，周末在23：00关闭。", ["22:15", "23：00"]),
        ("申请须在3月31日前交上，2026年4月2日起生效。", ["3月31日", "2026年4月2日"]),
        ("押金为房租的百分之十五，另收2.5%的手续费。", ["百分之十五", "2.5%"]),
        ("钥匙遗失须填写表格K17，门牌为AB-204号。", ["K17", "AB-204"]),
        ("访客最多住五晚，须提前两个星期商定。", ["五晚", "两个星期"]),
        ("冷库保持在4 °C以下，承重1,200kg。", ["4 °C", "1,200kg"]),
        ("交货后6天内索赔，前7天免费。", ["6天", "7天"]),
        ("第3天起几十人由一名成人陪同，自2024年起。", []),
    ],
)
def test_facts_of_chinese_text(text: str, answers: list[str]) -> None:
    found = facts(Clause("x", text, "规定", "a", 1))
    assert [fact.answer for fact in found] == answers
    for fact in found:
        assert fact.sentence[fact.start : fact.end] == fact.answer


def test_questions_are_worded_by_what_stands_around_and_hold_no_answer() -> None:
    clause = Clause("x", "代币每枚3欧元，在艾达·伦德的服务台购买。", "洗衣房", "a", 1)
    made = RuleQuestions([clause]).make(clause, [])
    assert [(split, question) for split, question, _ in made] == [
        ("test", "请查“洗衣房”这一条：关于代币、艾达，写明的是多少欧元？"),
        ("dev", "“洗衣房”一条里，空白处应填什么：代币每枚___，在艾达·伦德的？"),
    ]
    assert not any(stands_in(fact.answer, question) for _, question, fact in made)
