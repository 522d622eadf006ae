"""The report in a real browser: sorting, keyboard, small windows, both colour schemes, and nothing from a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymc.reporting.search.page import write_report
from tests.fabricated_study import fabricate
from tests.webdriver import Browser, browser, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"the browser test needs Chromium: {missing()}")

ENTER = "\ue007"
COLUMN = """
const at = [...document.querySelectorAll("#all-trials th")].findIndex((th) => th.textContent.trim() === "%s");
return [...document.querySelectorAll("#all-trials tbody tr")].map((row) => row.cells[at].textContent);
"""
EVIL = "<script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    study = fabricate(folder / "large", 200, study={"study": f"large {EVIL}", "question": EVIL, "git": EVIL})
    return write_report(study, folder / "report")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def shown(chromium: Browser, page: Path) -> Browser:
    chromium.open(page)
    return chromium


def header(name: str) -> str:
    """CSS selector of a header's button, by its place in the table."""
    places = {"trial": 1, "state": 2, "score": 3, "fresh seeds": 4, "heads.weight_decay": 5}
    return f"#all-trials th:nth-child({places[name]}) button"


def numbers(texts: list[str]) -> list[float]:
    return [float(text) for text in texts if text != "–"]


def test_a_click_sorts_by_number_and_a_second_one_turns_round(shown: Browser) -> None:
    before = shown.run(COLUMN % "score")
    shown.click(header("score"))
    rising = shown.run(COLUMN % "score")
    assert numbers(rising) == sorted(numbers(before))
    assert set(rising[len(numbers(rising)) :]) == {"–"}  # what has no score stays last
    shown.click(header("score"))
    falling = shown.run(COLUMN % "score")
    assert numbers(falling) == sorted(numbers(before), reverse=True)
    assert set(falling[len(numbers(falling)) :]) == {"–"}
    assert shown.run("return document.querySelectorAll('#all-trials [aria-sort]').length") == 1
    assert shown.run("return document.querySelectorAll('#all-trials th')[2].ariaSort") == "descending"


def test_small_and_large_powers_of_ten_sort_as_numbers(shown: Browser) -> None:
    shown.click(header("heads.weight_decay"))
    found = numbers(shown.run(COLUMN % "heads.weight_decay"))
    assert len(found) == 200
    assert found == sorted(found)


def test_the_keyboard_sorts_too(shown: Browser) -> None:
    shown.press(header("state"), ENTER)
    states = shown.run(COLUMN % "state")
    shown.press(header("trial"), ENTER)
    trials = shown.run(COLUMN % "trial")
    assert states[0] == "collapsed"
    assert states == sorted(states, key=lambda text: text.replace("out of memory", "out_of_memory"))
    assert trials == [str(number) for number in range(200)]


def test_users_text_stays_text_and_nothing_is_fetched(shown: Browser) -> None:
    assert shown.run("return document.querySelector('h1').textContent") == f"large {EVIL}"
    assert shown.run("return window.taken === undefined")
    assert shown.run("return performance.getEntriesByType('resource').length") == 0
    assert shown.complaints() == []
    unloaded = "return [...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
    assert shown.run(unloaded) == 0


@pytest.mark.parametrize("width", [360, 400, 1200])
def test_the_page_never_scrolls_sideways(shown: Browser, width: int) -> None:
    shown.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert shown.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    small = "return [...document.querySelectorAll('.panels svg, .pair svg')]"
    assert shown.run(f"{small}.every((svg) => svg.getBoundingClientRect().width <= {width})")


def test_both_colour_schemes_keep_their_contrast(shown: Browser) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        shown.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for selector in ("p.question", ".verdict", ".card p", ".warnings li", "a", "td.state", "figcaption"):
            ground, ink = shown.run(f"return [{BACKGROUND}({selector!r}), {COLOUR}({selector!r})]")
            assert contrast(ground, ink) >= 4.5, (scheme, selector, ground, ink)
            seen.add((scheme, ground))
    assert len({ground for _, ground in seen}) >= 4


COLOUR = "((s) => getComputedStyle(document.querySelector(s)).color)"
BACKGROUND = """((s) => {
  let at = document.querySelector(s);
  while (getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)") at = at.parentElement;
  return getComputedStyle(at).backgroundColor;
})"""


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two `rgb(r, g, b)` (WCAG 2.1, section 1.4.3)."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
