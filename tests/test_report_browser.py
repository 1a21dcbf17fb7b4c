"""The report and the audit as a real browser shows them: light and dark, on a desk, on a phone and on
paper."""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from report_run import write_run
from shard_making import write_two_tasks, write_vocab

from data_gen.audit import __main__ as audit
from ernie2 import report

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"
)

DESK, PHONE, A4 = 1280, 390, 703
LONG_NAME = "a_task_of_the_users_own_whose_name_is_long"
GROUNDS = {"light": (255, 255, 255), "dark": (21, 24, 27)}
"""The page's background (--page in ernie2/report.css)."""

# Every visible text with its place, its size on the screen, its colour and what is behind it.
TEXTS = """[...document.querySelectorAll('main *')].filter(one => one.tagName != 'title' && one.getClientRects().length &&
  [...one.childNodes].some(node => node.nodeType == 3 && node.data.trim())).map(one => {
    const style = getComputedStyle(one), place = one.getBoundingClientRect(), inside = one.closest('svg.chart')
    let behind = one
    while (getComputedStyle(behind).backgroundColor == 'rgba(0, 0, 0, 0)' && behind.parentElement) behind = behind.parentElement
    const x = (place.left + place.right) / 2, y = (place.top + place.bottom) / 2
    const under = inside && [...inside.querySelectorAll('.band path')].filter(rect => {
      const of = rect.getBoundingClientRect()
      return rect.compareDocumentPosition(one) & 4 && of.left <= x && x <= of.right && of.top <= y && y <= of.bottom}).pop()
    return {text: one.textContent.trim().slice(0, 40), svg: !!inside,
            box: [place.left, place.top, place.right, place.bottom], color: inside ? style.fill : style.color,
            behind: under ? getComputedStyle(under).fill : getComputedStyle(behind).backgroundColor,
            size: parseFloat(style.fontSize) * (inside ? one.getScreenCTM().a : 1)}})"""

# Every visible chart: its place, the colours of its curves, the places of its texts.
CHARTS = """[...document.querySelectorAll('svg.chart, .plot, .classes, .stacks')].filter(
  one => one.getClientRects().length).map(one => {
    const box = of => { const place = of.getBoundingClientRect(); return [place.left, place.top, place.right, place.bottom] }
    return {title: one.getAttribute('aria-label'), box: box(one).map((value, i) => value + (i % 2 ? scrollY : scrollX)),
            colors: [...one.querySelectorAll('.curve path, .level path')].map(curve => getComputedStyle(curve).stroke),
            texts: [...one.querySelectorAll('text, span, .word, .figure')].filter(text => text.textContent.trim())
                   .map(text => [text.textContent, ...box(text)]), frame: box(one)}})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """report.html of a small run with a skipped step and a task of a long name, audit.html of two tasks."""
    run = write_run(tmp_path_factory.mktemp("report") / "run", skipped_steps=1)
    for log in (run / "train.jsonl", run / "eval.jsonl"):
        log.write_text(
            log.read_text(encoding="utf-8").replace("sentence_distance", LONG_NAME), encoding="utf-8"
        )
    (run / "report.html").write_text(report.page(run), encoding="utf-8")
    folder = tmp_path_factory.mktemp("audit") / "shards"
    shards = write_two_tasks(folder, write_vocab(folder))
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit):
        audit.main([str(shards)])
    return {"report": run / "report.html", "audit": shards / "audit.html"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for the tests of this file."""
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def rgb(color: str) -> tuple[float, ...]:
    """The channels of rgb(1, 2, 3)."""
    return tuple(map(float, re.findall(r"[\d.]+", color)[:3]))


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The ratio of two colours' luminance, as the Web Content Accessibility Guidelines define it."""
    lights = []
    for color in (a, b):
        channels = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in color)
        ]
        lights.append(float(np.dot((0.2126, 0.7152, 0.0722), channels)) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", ["report", "audit"])
def test_all_text_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    browser.open(pages[name], width, scheme=scheme)
    assert browser.console == [] and browser.requests == [pages[name].as_uri()], (
        "the page loads nothing and fails in nothing"
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page moves sideways"
    texts = browser.evaluate(TEXTS)
    assert len(texts) > 100
    for one in texts:
        assert contrast(rgb(one["color"]), rgb(one["behind"])) >= 4.5, one
        assert one["size"] >= (8.5 if one["svg"] else 9.9), one
    for chart in browser.evaluate(CHARTS):
        left, top, right, bottom = chart["frame"]
        for text, *box in chart["texts"]:
            assert (
                box[0] >= left - 1 and box[2] <= right + 1 and box[1] >= top - 3 and box[3] <= bottom + 3
            ), f"{chart['title']}: {text!r} is cut off"
        for (text, *a), (other, *b) in combinations(chart["texts"], 2):
            across, down = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
            # a box is higher than its letters
            assert across < 1 or down < 0.35 * (a[3] - a[1]), f"{chart['title']}: {text!r} lies on {other!r}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_show_their_curves(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, scheme: str
) -> None:
    image = pytest.importorskip("PIL.Image", reason="no pillow to read a screenshot with")
    browser.open(pages["report"], DESK, scheme=scheme, scale=2)
    charts = browser.evaluate(CHARTS)
    assert len(charts) == 2 * 9 + 1 + 3
    pixels = np.asarray(image.open(browser.screenshot(tmp_path / "page.png")).convert("RGB"))
    assert tuple(pixels[4, 4]) == GROUNDS[scheme] == tuple(pixels[-4, -4])
    drawn = np.abs(pixels[::3, ::3] - np.int16(GROUNDS[scheme])).max(axis=2) > 60
    assert 0.01 < drawn.mean() < 0.3, "blank, or no page at all"
    for chart in charts:
        left, top, right, bottom = (int(2 * value) for value in chart["box"])
        part = pixels[top:bottom, left:right].astype(np.int16)
        assert chart["colors"], chart
        for color in chart["colors"]:
            found = (np.abs(part - rgb(color)).max(axis=2) <= 24).sum()
            assert found > 40, f"{chart['title']}: a curve of colour {color} cannot be seen"
            assert contrast(rgb(color), GROUNDS[scheme]) >= 3, f"{chart['title']}: {color} is too faint"


def test_narrow_screens_get_a_picture_of_forgetting_of_their_own(
    browser: Browser, pages: dict[str, Path]
) -> None:
    shapes = []
    for width in (DESK, PHONE):
        browser.open(pages["report"], width)
        boxes = [
            chart["box"]
            for chart in browser.evaluate(CHARTS)
            if chart["title"].startswith("Change of dev loss")
        ]
        assert len(boxes) == 1
        shapes.append((boxes[0][2] - boxes[0][0]) / (boxes[0][3] - boxes[0][1]))
    assert shapes[0] > 2.5 > 2 > shapes[1]


@pytest.mark.parametrize("name", ["report", "audit"])
def test_on_paper(browser: Browser, pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    browser.open(pages[name], A4, scheme="dark", media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= A4, "paper cannot be moved sideways"
    assert rgb(browser.evaluate("getComputedStyle(document.body).backgroundColor")) == GROUNDS["light"], (
        "no dark paper"
    )
    for one in browser.evaluate(TEXTS):
        assert contrast(rgb(one["color"]), rgb(one["behind"])) >= 4.5, one
    breaks = browser.evaluate(
        "[...document.querySelectorAll('.chart, tr')].map(one => getComputedStyle(one).breakInside)"
    )
    assert set(breaks) == {"avoid"}, "a page ends in the middle of a chart or a row"
    data = browser.pdf(tmp_path / "page.pdf").read_bytes()
    texts = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        with contextlib.suppress(zlib.error):
            texts.append(len(re.findall(rb"\bT[jJ]\b", zlib.decompress(stream))))
    printed = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 2 <= printed <= 12 and sum(count > 5 for count in texts) >= printed, "every page has words on it"
