"""report.html as a browser shows it: from disk, in both colour schemes, on a phone."""

from __future__ import annotations

import json

import pytest
from browsing import (
    Picture,
    Shown,
    colours_of,
    least_contrast,
    overflow,
    scroll_to,
    size_of,
    visible_text,
    wait_for,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.browser
HEADINGS = ("Answer", "Verdicts", "Comparison", "Retention by distance and by turn", "Worst failures", "Setup")


@pytest.fixture
def report(page: Chrome, shown: Shown) -> Chrome:
    page.get((shown.folder / "report.html").as_uri())
    return page


def test_it_opens_from_disk(report: Chrome, shown: Shown, picture: Picture) -> None:
    summary = json.loads((shown.folder / "summary.json").read_text(encoding="utf-8"))
    wait_for(report, *HEADINGS, *summary["methods"])
    assert overflow(report) == 0
    picture("report")
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")
    wait_for(report, *(claim["claim"] for claim in summary["verdicts"].values()))  # those not decided are folded
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = false)")
    scroll_to(report, "#retention")
    picture("report-retention")


def test_every_figure_is_drawn(report: Chrome) -> None:
    figures = report.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(figures) >= 5
    assert [figure.size for figure in figures if figure.size["width"] < 300 or figure.size["height"] < 80] == []


def test_links_lead_to_what_is_there(report: Chrome) -> None:
    targets = [link.get_dom_attribute("href") for link in report.find_elements(By.CSS_SELECTOR, "a[href]")]
    assert len(targets) > 10
    missing = "return arguments[0].filter(t => !t.startsWith('#') || !document.getElementById(t.slice(1)))"
    assert report.execute_script(missing, targets) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(report: Chrome, picture: Picture, scheme: str) -> None:
    colours_of(report, scheme)
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")
    ratio, text = least_contrast(report)
    assert ratio >= 4.5, text
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = false)")
    if scheme == "dark":
        picture("report-dark")


def test_a_phone_is_wide_enough(report: Chrome, picture: Picture) -> None:
    """400 px: only tables scroll sideways, each in its own frame."""
    size_of(report, 400, 860)
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")
    assert overflow(report) == 0
    report.execute_script("document.querySelectorAll('details').forEach(found => found.open = false)")
    picture("report-phone")
    assert "Worst failures" in visible_text(report)
