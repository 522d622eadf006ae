"""The stability report in a real browser: sorting, small windows, paper, both colour schemes, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymc.reporting.stability.page import write_stability
from tests.fabricated_stability import fabricate_run
from tests.test_report_browser import BACKGROUND, COLOUR, EVIL, contrast
from tests.webdriver import Browser, browser, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"the browser test needs Chromium: {missing()}")

ARMS = {"mlc": [0.80 + 0.01 * i for i in range(12)], "nmce": [0.9 - 0.07 * (i % 5) for i in range(12)]}
COLUMN = 'return [...document.querySelectorAll("#all-seeds tbody tr")].map((row) => row.cells[%d].textContent)'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    run = fabricate_run(folder, "mlc-vs-nmce-stability-1", ARMS, states={3: "collapsed"}, clusters_by=EVIL, method=EVIL)
    return write_stability(run, folder / "report")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def shown(chromium: Browser, page: Path) -> Browser:
    chromium.open(page)
    return chromium


def test_a_click_sorts_the_seeds_and_what_has_no_figure_stays_last(shown: Browser) -> None:
    shown.click("#all-seeds th:nth-child(4) button")
    rising = shown.run(COLUMN % 3)
    assert len(rising) == 24 and rising[-2:] == ["–", "–"]
    found = [float(text) for text in rising[:-2]]
    assert found == sorted(found) and found != sorted(ARMS["mlc"])
    shown.click("#all-seeds th:nth-child(4) button")
    assert [float(text) for text in shown.run(COLUMN % 3)[:-2]] == found[::-1]
    shown.click("#all-seeds th:nth-child(1) button")
    assert shown.run(COLUMN % 0) == ["mlc"] * 12 + ["nmce"] * 12


def test_the_page_needs_nothing_else_and_users_text_stays_text(shown: Browser) -> None:
    assert EVIL in shown.run("return document.querySelector('#again').textContent")
    assert shown.run("return window.taken === undefined")
    assert shown.run("return performance.getEntriesByType('resource').length") == 0
    assert shown.complaints() == []


def test_every_picture_says_what_it_shows(shown: Browser) -> None:
    labels = shown.run("return [...document.querySelectorAll('svg')].map((s) => [s.getAttribute('role'), s.ariaLabel])")
    assert len(labels) >= 6 and all(role == "img" and len(label) > 20 for role, label in labels)
    assert shown.run("return [...document.querySelectorAll('[aria-labelledby]')].every((e) => "
                     "document.getElementById(e.getAttribute('aria-labelledby')))")  # fmt: skip


@pytest.mark.parametrize("width", [360, 400, 1200])
def test_the_page_never_scrolls_sideways(shown: Browser, width: int) -> None:
    shown.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert shown.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_on_paper_no_table_is_cut(shown: Browser) -> None:
    shown.devtools("Emulation.setDeviceMetricsOverride", width=720, height=1000, deviceScaleFactor=1, mobile=False)
    shown.devtools("Emulation.setEmulatedMedia", media="print")
    cut = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > 721).length"
    assert shown.run(cut) == 0
    assert shown.run("return getComputedStyle(document.querySelector('.scroll.tall')).overflowY") == "visible"
    shown.devtools("Emulation.setEmulatedMedia", media="")


def test_figures_of_the_heat_map_are_legible_in_both_schemes(shown: Browser) -> None:
    for scheme in ("light", "dark"):
        shown.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for selector in (".verdict", ".quiet", "figcaption", "td.state"):
            assert contrast(*shown.run(f"return [{BACKGROUND}({selector!r}), {COLOUR}({selector!r})]")) >= 4.5
        ink, cell, ground = shown.run(
            "const css = (s, key) => getComputedStyle(document.querySelector(s))[key];"
            f"return [css('.maps .figure', 'fill'), css('.maps .cell', 'fill'), {BACKGROUND}('.maps')]"
        )
        for share in (0.0, 0.275, 0.55):
            assert contrast(ink, mixed(cell, ground, share)) >= 4.0, (scheme, share)


def mixed(colour: str, ground: str, share: float) -> str:
    """What is seen where `share` of a colour lies on a ground."""
    parts = [[int(part) for part in one.removeprefix("rgb(").removesuffix(")").split(",")] for one in (colour, ground)]
    return "rgb(" + ", ".join(str(round(share * a + (1 - share) * b)) for a, b in zip(*parts, strict=True)) + ")"
