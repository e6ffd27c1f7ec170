"""Scoring of Chinese: values, bounds, abstentions and text, against cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_cases import assert_one_value, assert_scored_as_meant, qa

from eval.scoring import (
    abstains,
    exact_match,
    held_values,
    is_abstention,
    is_correct,
    normalise,
    recites,
    spans,
    token_f1,
    verbatim,
)
from eval.structure import sentences
from tasks.base import NO_CLAUSE
from tasks.registry import load_task
from tasks.values_zh import in_figures

SAME = [
    ("27天", "二十七天", "２７天", "27 天", "27个天", "27 days"),
    ("两天", "2天", "二天", "2个天"),
    ("7周", "七周", "7个星期", "七个礼拜", "7星期", "7 weeks"),
    ("5个月", "五个月", "5 months"),
    ("8小时", "八个小时", "8个钟头", "8 hours"),
    ("35分钟", "三十五分钟", "35 min"),
    ("半小时", "半个小时", "0.5小时", "half an hour"),
    ("两个半小时", "2.5小时", "2个半小时", "两小时半", "二点五小时"),
    ("一刻钟", "15分钟"),
    ("三天半", "3.5天"),
    ("半年", "0.5年"),
    ("1150欧元", "1,150欧元", "一千一百五十欧元", "EUR 1150", "€1,150", "1150欧"),
    ("40元", "40块钱", "四十元", "40块", "40人民币"),
    ("付￥40", "付40元"),
    ("三万五千元", "35000元", "3.5万元", "35,000元", "三万五元"),
    ("11公里", "11千米", "十一公里", "11 km"),
    ("5千米", "五公里", "五千米"),
    ("45厘米", "45公分", "四十五厘米", "45 cm"),
    ("3千克", "三公斤", "3 kg"),
    ("下午三点半", "15:30", "15点30分", "十五点半", "下午3:30", "１５：３０", "3:30 pm"),
    ("9:40", "九点四十分", "早上9点40分", "9点40", "09:40"),
    ("凌晨两点十分", "2:10", "2点10分"),
    ("六点一刻", "6:15", "早上六点十五分"),
    ("三点零五分", "3:05"),
    ("晚上九点", "21:00", "21点", "晚上9点整"),
    ("晚上十二点", "00:00", "半夜12点"),
    ("5月31日", "五月三十一日", "5月31号", "31 May"),
    ("2026年3月1日", "二〇二六年三月一日", "1 March 2026"),
    ("零下24度", "-24度", "零下二十四度", "负24度", "minus 24 degrees"),
    ("4摄氏度", "4°C", "摄氏4度", "４℃", "四摄氏度"),
    ("25%", "百分之二十五", "25 percent"),
    ("星期三", "周三", "礼拜三"),
    ("星期天", "周日", "星期日"),
    ("4份", "四份"),
    ("12号月台", "十二号月台", "１２号月台"),
    ("3楼", "三楼"),
    ("一百零五位", "105位"),
    ("一百二十", "120", "一百二"),
    ("两次", "2次", "二次"),
    ("每天40欧元", "每日40欧元", "每一天40欧元"),
    ("11公里/小时", "11公里每小时"),
    ("20至30天", "20到30天", "20-30天", "二十至三十天", "20～30天"),
    ("K17表", "ｋ17表", "k17 表"),
    ("诺拉·戴利", "诺拉戴利", "诺拉 戴利", "诺拉．戴利"),
]


@pytest.mark.parametrize("forms", SAME, ids=lambda forms: forms[0])
def test_forms_of_one_value_are_one_value(forms: tuple[str, ...]) -> None:
    assert_one_value(forms)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("每年27天。", "per year 27 day"),
        ("一般没有一定之规", "一 般 没 有 一 定 之 规"),  # these numerals count nothing
        ("十分重要", "十 分 重 要"),
        ("十分钟", "10 minute"),
        ("三五天", "3 day to 5 day"),  # about: neither three nor five days, and not 35
        ("第三天", "第 3 天"),  # a place in a row, no length
        ("3个托盘", "3 托 盘"),
        ("五千克", "5 kilogram"),
        ("分机六零五二", "分 机 6052"),
        ("A区和B区", "a 区 和 b 区"),  # a letter is no article here
        ("G2点", "g2 点"),  # a code is no hour
        ("三周一次", "3 week 1 time"),  # no Monday in it
        ("一亿二千万", "120000000"),
        ("零", "0"),
        ("，。！", ""),
    ],
)
def test_normalised_by_hand(text: str, tokens: str) -> None:
    assert normalise(text) == tokens


VALUE_CHARACTERS = "零一二两三十百千万亿半点时分周天月日号年个每第0159:.元欧负下"


@given(st.text(alphabet=st.characters() | st.sampled_from(VALUE_CHARACTERS), max_size=30))
def test_any_text_can_be_normalised_and_abstention_decided(text: str) -> None:
    assert isinstance(normalise(text), str)
    assert isinstance(is_abstention(text), bool)


@given(st.integers(1, 99_999))
def test_a_number_in_characters_is_the_number_in_figures(number: int) -> None:
    digits, words = "零一二三四五六七八九", ""
    for place, name in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            words += digits[digit] + name
        elif words and not words.endswith("零") and number % place:
            words += "零"
    assert normalise(f"{words}天") == normalise(f"{number}天") == f"{number} day"


def test_a_value_is_bounded() -> None:
    key = qa("7天")
    for final in ("7天", "共有7天。", "每年七天假", "７天"):
        assert is_correct(final, key), final
    for final in ("27天", "二十七天", "7.5天", "7", "七周", "第七天", "5到7天", "零下7天"):
        assert not is_correct(final, key), final
    assert is_correct("在三楼", qa("三楼"))
    assert not is_correct("在十三楼", qa("三楼"))
    assert not is_correct("在三十三楼", qa("三楼"))
    assert is_correct("用K17表申领", qa("K17"))
    assert not is_correct("用K174表申领", qa("K17"))
    assert spans("20分钟", "1小时20分钟") == []
    assert spans("1小时", "一小时二十分钟") == []
    assert spans("24度", "零下24度") == []
    assert not is_correct("下午3:30", qa("3:30"))


def test_a_rival_makes_the_answer_wrong() -> None:
    key = qa("10个工作日", rivals=("15个工作日", "10"))
    assert is_correct("需要十个工作日。", key)
    assert not is_correct("10个工作日，邮寄的话15个工作日。", key)
    assert held_values("十五个工作日", key) == (False, ("15个工作日",))
    assert not is_correct("苍鹭表或者金鸻表", qa("苍鹭表", rivals=("金鸻表",)))


def test_a_denied_value_is_not_held() -> None:
    key = qa("40欧元", rivals=("50欧元",))
    assert is_correct("是40欧元，不是50欧元。", key)
    assert is_correct("是40欧元而非50欧元", key)
    assert is_correct("并非五十欧元，而是四十欧元", key)
    assert not is_correct("不是40欧元。", key)
    assert is_correct("不得超过40欧元。", key)


def test_unanswerable_means_to_abstain() -> None:
    unanswerable = qa("", rivals=("40欧元",), ids=())
    assert is_correct("手册没有说明。", unanswerable)
    assert is_correct("The handbook does not say.", unanswerable)
    assert not is_correct("是30欧元。", unanswerable)
    assert not is_correct("手册没有说明，不过波尔图是40欧元。", unanswerable)
    assert not is_correct("手册没有说明，可能是40欧元。", qa("40欧元"))
    assert exact_match("我不知道。", unanswerable) == token_f1("我不知道。", unanswerable) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        NO_CLAUSE["zh"][0],
        NO_CLAUSE["zh"][1],
        "手册没有提到停车。",
        "手册中并未说明这一点。",
        "手册没有明确规定。",
        "条款里没有写。",
        "没有相关规定。",
        "没有条款涉及这个问题。",
        "没有找到关于停车的条款，手册未提及。",
        "我不知道。",
        "我不太清楚这个问题的答案。",
        "无法确定。",
        "无法从手册中得知。",
        "这个问题手册没有涉及。",
        "这一点在规定里没有写明。",
        "手册里没有这方面的内容。",
        "不在手册范围内。",
        "未提及。",
        "不得而知。",
    ],
)
def test_abstentions(text: str) -> None:
    assert is_abstention(text)


@pytest.mark.parametrize(
    "text",
    [
        "40欧元。",
        "每天40欧元，酒精饮料未涵盖在内。",
        "不需要收据。",
        "不，员工不需要批准。",
        "不得乘坐头等舱。",
        "去问部门主管。",
        "须经部门主管书面同意。",
        "规定写明须提前7周。",
        "没有例外。",
    ],
)
def test_answers_that_only_sound_like_abstentions(text: str) -> None:
    assert not is_abstention(text)


def test_an_answer_with_the_key_abstains_only_in_plain_words() -> None:
    key = qa("不需要")
    assert is_correct("不需要，这条规定不涉及承包商。", key)
    assert not abstains("不需要，这条规定不涉及承包商。", key)
    assert not is_correct("手册没有说明，也许不需要。", key)


def test_exact_match_and_f1_by_hand() -> None:
    key = qa("苍鹭表", aliases=("苍鹭",))
    assert exact_match("苍鹭表。", key) == exact_match("苍鹭", key) == 1.0
    assert exact_match("用苍鹭表", key) == 0.0
    # {用, 苍, 鹭, 表, 申, 请} against {苍, 鹭, 表}: precision 3/6, recall 3/3, F1 = 2 * 3 / (6 + 3)
    assert token_f1("用苍鹭表申请", key) == pytest.approx(2 / 3)
    # A value is one token and its unit another: {共, 27, day} against {27, day}: 2 * 2 / (3 + 2)
    assert token_f1("共二十七天", qa("27天")) == pytest.approx(4 / 5)
    assert token_f1("没有", key) == 0.0


def test_verbatim_puts_width_and_white_space_aside_and_nothing_else() -> None:
    clause = "长期员工享有27天年假，须提前7周提出（“苍鹭表”）。"
    assert verbatim(clause, clause)
    assert verbatim(' 长期员工享有 27 天年假,须提前７周\n提出("苍鹭表").', clause)
    assert not verbatim("长期员工享有二十七天年假，须提前7周提出（“苍鹭表”）。", clause)
    assert not verbatim(clause[:-1], clause)
    assert recites(f"条款是：{clause} 所以是27天。", clause)
    assert not recites(clause[1:], clause)


def test_the_packaged_task_is_scored_as_its_authors_mean_it() -> None:
    task = load_task("regs_zh")
    assert_scored_as_meant(task, "答案是{}。")


def test_a_chain_is_cut_into_sentences() -> None:
    assert sentences("条款写的是27天。所以答案是27天！对吗？") == (
        "条款写的是27天。",
        "所以答案是27天！",
        "对吗？",
    )
    assert sentences("One. Two?") == ("One.", "Two?")


def test_a_figure_is_spelt_as_in_english() -> None:
    assert in_figures("享有二十七天").split() == ["享", "有", "27", "day"]
