"""Self-made questions and abstentions in Chinese."""

from __future__ import annotations

import re
from dataclasses import replace

from tasks.base import NO_CLAUSE, Memory
from tasks.examples import ExampleConfig, clause_examples, unanswerable_examples
from tasks.registry import load_task
from tasks.self_cues import self_made_questions
from tasks.self_cues_zh import chinese_questions

ZH = load_task("regs_zh")


def test_self_made_questions_by_hand() -> None:
    clause = Memory(
        "1", "员工每年享有27天年假。申请在9:40之前用K17表交给鲁伊·马托斯，5月31日作废。", "年假，里斯本"
    )
    assert chinese_questions(clause) == [
        "年假，里斯本：员工每年享有多少天年假？",
        "年假，里斯本：申请在几点之前用K17表交给鲁伊·马托斯，5月31日作废？",
        "年假，里斯本：申请在9:40之前用什么编号表交给鲁伊·马托斯，5月31日作废？",
        "年假，里斯本：申请在9:40之前用K17表交给谁，5月31日作废？",
        "年假，里斯本：申请在9:40之前用K17表交给鲁伊·马托斯，几月几日作废？",
    ]
    assert chinese_questions(Memory("2", "G2级可用3天。", "假，G2级")) == ["假，G2级：G2级可用多少天？"]
    assert chinese_questions(Memory("4", "Staff of 上海 get 31 euros per day.", "Meals")) == []
    assert len(self_made_questions(Memory("4", "Staff of 上海 get 31 euros per day.", "Meals"), 9)) == 1
    assert chinese_questions(Memory("3", "Staff get 31 euros per day.", "Meals")) == []


def test_every_clause_gets_questions_that_lead_to_it_and_no_further() -> None:
    for memory in ZH.memories:
        questions = self_made_questions(memory, 3)
        assert 1 <= len(questions) <= 3, memory.id
        for question in questions:
            assert question.startswith(f"{memory.title}：") and question.endswith("？"), question
            assert re.search("多少|几点|几月几日|什么|谁", question), question
    made = clause_examples([replace(memory, cues=()) for memory in ZH.memories], ExampleConfig())
    for memory in ZH.memories:
        for example in made[memory.id]:
            assert (example.memory_id, example.clause, example.answer) == (memory.id, memory.text, "")


def test_abstention_is_in_the_language_of_the_task() -> None:
    assert {(e.clause, e.answer) for e in unanswerable_examples(ZH.sft)} == {NO_CLAUSE["zh"]}
    assert {(e.clause, e.answer) for e in unanswerable_examples(load_task("regs").sft)} == {NO_CLAUSE["en"]}
