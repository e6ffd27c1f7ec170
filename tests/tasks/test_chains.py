"""Chains by rule: they hold the words of the clause that answer, and the answer."""

from __future__ import annotations

import pytest

from tasks.base import QA
from tasks.chains import chain_of

TEXT = "A novel may stay with the reader for 5 weeks, and a film for 7 days. Each day more costs 20 cents."


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("How long may I keep a film?", "7 days", "7 days"),
        ("How long may I keep a film?", "one week", "and a film for 7 days"),  # the same value in other words
        ("What does a day more cost?", "0.20 euros", "Each day more costs 20 cents"),
        ("May a novel stay longer than a month?", "yes", "A novel may stay with the reader for 5 weeks"),
    ],
)
def test_a_question_without_a_chain_gets_the_words_that_answer_it(question: str, answer: str, words: str) -> None:
    chain = chain_of(QA("q", question, answer, ("m",)), TEXT)
    assert chain == f"The rule says {words}, so the answer is {answer}."


def test_a_chinese_clause_gets_a_chinese_chain() -> None:
    qa = QA("q", "年假几天？", "27天", ("m",))
    assert chain_of(qa, "正式员工每年享有27天带薪年假，须提前7周申请。") == "条文写着27天，所以答案是27天。"
