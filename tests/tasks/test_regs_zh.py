"""The handbook in Chinese: clause by clause that of regs, in Chinese throughout."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tasks.base import NO_CLAUSE, QA, Memory
from tasks.chinese import has_chinese, joined
from tasks.dialogues import build_dialogues
from tasks.handbook import stands_in
from tasks.registry import load_task
from tasks.validate import content_words, coverage, nearly_equal, problems, remarks, words

REGS, ZH = load_task("regs"), load_task("regs_zh")
PAIRS = list(zip(REGS.memories, ZH.memories, strict=True))

MONTHS = {"February": 2, "May": 5, "September": 9, "October": 10, "November": 11}
WEEKDAYS = {"Monday": "一", "Tuesday": "二", "Wednesday": "三", "Thursday": "四", "Friday": "五"}
ORDER = {"second": "第二个", "third": "第三个", "last": "最后一个"}


def _figures(answer: str) -> list[int]:
    """The figures of an answer in either language: "31 May" and "5月31日" both give [5, 31]."""
    month = next((n for name, n in MONTHS.items() if name in answer), None)
    sign = -1 if answer.startswith(("minus", "零下")) else 1
    return [*([month] if month else []), *(sign * int(digits) for digits in re.findall(r"\d+", answer))]


def _shape(qa: QA) -> tuple[object, ...]:
    return (qa.id, qa.split, qa.kind, qa.slot, qa.memory_ids)


def test_every_clause_of_regs_is_there_with_the_same_facts_and_cues() -> None:
    assert [m.id for m in ZH.memories] == [m.id for m in REGS.memories]
    assert list(ZH.facts) == list(REGS.facts)
    assert list(ZH.follow_ups) == list(REGS.follow_ups)
    for one, two in PAIRS:
        assert one.cued == two.cued, one.id
        assert [_shape(cue) for cue in one.cues] == [_shape(cue) for cue in two.cues]


def test_it_is_sound_and_says_what_is_not_in_chinese() -> None:
    assert problems(ZH) == remarks(ZH) == []
    assert (ZH.language, REGS.language) == ("zh", "en")
    assert ["English" in note for note in ZH.notes] == [True]


def test_families_have_the_same_members() -> None:
    assert len({m.family for m in ZH.memories}) == len({(one.family, two.family) for one, two in PAIRS})
    assert len({m.family for m in ZH.memories}) == len({m.family for m in REGS.memories})


def test_the_same_questions_are_held_out() -> None:
    assert [_shape(qa) for qa in ZH.questions] == [_shape(qa) for qa in REGS.questions]
    assert [_shape(qa) for qa in ZH.revised_questions] == [_shape(qa) for qa in REGS.revised_questions]
    assert [m.id for m in ZH.revisions] == [m.id for m in REGS.revisions]
    kept = [c.id for c in ZH.sft if c.kind == "unanswerable"]
    assert kept == [c.id for c in REGS.sft if c.kind == "unanswerable"]


def test_the_figures_of_the_answers_are_those_of_regs() -> None:
    """Of the facts, of the revised facts, and of what needs two clauses."""
    facts = [(key, forms[0], ZH.facts[key][0]) for key, forms in REGS.facts.items()]
    asked = [*zip(REGS.questions, ZH.questions, strict=True)]
    asked += zip(REGS.revised_questions, ZH.revised_questions, strict=True)
    facts += [(one.id, one.answer, two.answer) for one, two in asked]
    for key, one, two in facts:
        assert _figures(one) == _figures(two), (key, one, two)
        for name, character in WEEKDAYS.items():
            assert (name in one) == two.endswith(f"星期{character}"), (key, one, two)
        for name, characters in ORDER.items():
            assert one.startswith(name) == two.startswith(characters), (key, one, two)
    assert sum(bool(_figures(one)) for _, one, _ in facts) > 400


def test_the_figures_of_a_text_are_those_of_regs() -> None:
    """Only the name of a month is a figure in Chinese and none in English."""
    texts = [(one.text, two.text) for one, two in (*PAIRS, *zip(REGS.revisions, ZH.revisions, strict=True))]
    for one, two in texts:
        english, chinese = (Counter(map(int, re.findall(r"\d+", text))) for text in (one, two))
        months = [int(month) for month in re.findall(r"(\d+)月", two)]
        assert chinese - Counter(months) == english, two


def test_no_english_is_left_but_codes() -> None:
    """Names of places and people are Chinese; G2, K17 and the like stay."""
    texts = [text for m in (*ZH.memories, *ZH.revisions) for text in (m.title, m.text, m.variant) if text]
    texts += [qa.question for qa in ZH.questions] + list(ZH.follow_ups.values())
    texts += [text for m in ZH.memories for cue in m.cues for text in (cue.question, cue.think)]
    for text in texts:
        assert has_chinese(text) or re.fullmatch(r"G\d", text), text
        assert not re.search(r"[A-Za-z]", re.sub(r"[A-Z]\d+", "", text)), text
    for forms in ZH.facts.values():
        assert has_chinese(forms[0]) or re.fullmatch(r"[\d:]+", forms[0]), forms


def test_a_figure_has_its_form_in_characters_among_the_aliases() -> None:
    for key, forms in ZH.facts.items():
        if re.fullmatch(r"\d+(天|周|个月|年|小时|分钟|欧元|公里|厘米|米|层|件|次|位|分)", forms[0]):
            assert any(not re.search(r"\d", form) for form in forms[1:]), (key, forms)


def test_what_a_cue_asks_for_tells_the_fact_and_not_its_value() -> None:
    """As in regs: siblings share the wording, the facts of a clause do not, and the value comes after it."""
    asks: dict[tuple[str, str], set[str]] = {}
    for memory in ZH.memories:
        values = [f for key, forms in ZH.facts.items() if key.startswith(f"{memory.id}/") for f in forms]
        for cue in memory.cues:
            found = re.fullmatch(r"问题问的是(.+)，条款写的是(.+)，所以答案是\2。", cue.think)
            assert found and found[2] == cue.answer, cue.id
            assert not any(stands_in(value, found[1]) for value in values), cue.id
            asks.setdefault((memory.family, cue.slot), set()).add(found[1])
    wordings = [wording for same in asks.values() for wording in same]
    assert len(set(wordings)) == len(wordings) == len(asks)


def test_a_question_names_what_sets_its_clause_apart() -> None:
    """Else a sibling's value would be as right an answer."""
    for memory in ZH.memories:
        siblings = [m.variant for m in ZH.memories if m.family == memory.family and m.id != memory.id]
        own = [qa.question for qa in ZH.questions if qa.kind == "single" and qa.memory_ids == (memory.id,)]
        for question in (*own, *(cue.question for cue in memory.cues)):
            assert memory.variant in question, (memory.id, question)
            assert not any(v in question.replace(memory.variant, "") for v in siblings), (memory.id, question)


def test_a_two_clause_answer_is_one_of_the_two_things_named() -> None:
    for qa in ZH.questions:
        if qa.kind == "two_clause" and not _figures(qa.answer.replace("G", "")):
            meant = [m for m in map(ZH.memory, qa.memory_ids) if m.variant in qa.answer or qa.answer in m.variant]
            assert len(meant) == 1, qa.id


def test_it_abstains_and_re_asks_in_chinese() -> None:
    think, answer = NO_CLAUSE["zh"]
    replies = {c.messages[-1].content for c in ZH.sft if c.kind == "unanswerable"}
    assert replies == {f"<think>\n{think}\n</think>\n{answer}"}
    asked = [
        t for d in build_dialogues(ZH, 0) for t in d.turns if t.kind in ("re_ask", "contradiction", "follow_up")
    ]
    assert asked
    assert not [t.user for t in asked if re.search(r"[a-z]{2}", t.user)]


@pytest.mark.parametrize(
    ("value", "text", "stands"),
    [
        ("7天", "共7天。", True),
        ("7天", "共27天。", False),
        ("三楼", "在三楼", True),
        ("三楼", "在十三楼", False),
        ("七天", "二十七天", False),
        ("苍鹭", "用苍鹭表", True),
        ("K17", "用K17表", True),
        ("K1", "用K17表", False),
        ("14室", "到114室", False),
    ],
)
def test_a_value_is_bounded_in_chinese(value: str, text: str, stands: bool) -> None:
    assert stands_in(value, text) == stands


def test_what_makes_a_value_a_part_of_another() -> None:
    assert joined("三", "十") and joined("三", "1") and joined("a", "1")
    assert not joined("三", "楼") and not joined("楼", "三") and not joined("7", "共") and not joined("三", "")


def test_likeness_of_questions_is_by_characters() -> None:
    assert words("用K17表，27天") == ("用", "k17", "表", "27", "天")
    assert nearly_equal("定期员工每年享有多少天带薪年假？", "定期员工每年享有几天带薪年假？")
    assert not nearly_equal("定期员工每年享有多少天带薪年假？", "定期员工用哪张表申请休假？")
    assert content_words("食堂的采购限额是多少？") == {"食堂", "采购", "购限", "限额"}
    clause = Memory("1", "食堂可以不经批准采购390欧元以内的物品。", "采购限额，食堂")
    assert coverage("食堂的采购限额是多少？", clause) == 1.0
    assert coverage("公司合唱团什么时候排练？", clause) == 0.0
