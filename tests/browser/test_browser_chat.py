"""The chat page answers in a browser, method beside method."""

from __future__ import annotations

import pytest
from browsing import Picture, Shown, colours_of, least_contrast, overflow, size_of, visible_text, wait_for
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser
ANSWER_S = 900.0  # three answers, one after the other


@pytest.fixture
def answered(page: Chrome, chat_page: str) -> Chrome:
    """The page with one question answered by every method."""
    page.get(chat_page)
    wait_for(page, "clauses), model", "Ask", "New conversation")
    examples = page.find_elements(By.CSS_SELECTOR, "#examples button")
    page.find_element(By.ID, "question").send_keys(examples[-1].text if examples else "How much is it?")
    page.find_element(By.ID, "send").click()
    size_of(page, 1280, 1000)
    columns = len(page.find_elements(By.CSS_SELECTOR, ".column"))
    WebDriverWait(page, ANSWER_S).until(
        lambda _: len(page.find_elements(By.CSS_SELECTOR, ".turn dl, .turn .problem")) >= columns > 0
    )
    return page


def test_every_method_answers_and_says_why(answered: Chrome, shown: Shown, picture: Picture) -> None:
    seen = visible_text(answered)
    assert [name for name in ("recall", "sft", "rag", "total", "retrieved") if name not in seen] == []
    answers = [found.text for found in answered.find_elements(By.CSS_SELECTOR, ".answer")]
    assert len(answers) == 3
    if not shown.real:
        assert answers == ["42"] * 3
        assert "recalled" in seen
    assert overflow(answered) == 0
    answered.execute_script("scrollTo({top: 0, behavior: 'instant'})")
    picture("chat")
    columns = answered.find_elements(By.CSS_SELECTOR, ".column")
    assert len({column.location["y"] for column in columns}) == 1  # side by side
    size_of(answered, 400, 860)
    assert overflow(answered) == 0


def test_texts_stand_out_in_the_dark_too(answered: Chrome) -> None:
    for scheme in ("light", "dark"):
        colours_of(answered, scheme)
        ratio, text = least_contrast(answered)
        assert ratio >= 4.5, (scheme, text)
