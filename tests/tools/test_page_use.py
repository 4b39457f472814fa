# SPDX-License-Identifier: Apache-2.0
"""The page of xsdump html in use: keys, filter, addresses, the time line, the clock, dark and
light, sizes, and how fast it is.

Method: the page in headless Chromium, with a recorded workload of the real server and with large
synthetic ones. Cannot show: whether it is good to look at, and how it is in other browsers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tools.browser import Browser
from tests.tools.pages import ROWS, moments_of, past_of, write_page
from tests.tools.synthetic import busy_host
from tools.dump.past import Change

pytestmark = pytest.mark.usefixtures("time_limit")

STEP_MS_MAX = 100  # the machine may be busy; the figure is printed


def test_the_keys(page: Browser) -> None:
    """Steps, jumps, pages, filter, help, node history."""
    last = page.value("tardigrade.past.moments.length") - 1

    def at() -> int:
        return int(page.value("tardigrade.moment.index"))
    assert at() == last
    page.press("Home")
    assert at() == 0
    page.press("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft")
    assert at() == 2
    page.press("PageDown")
    assert 10 < at() < 60
    page.press("PageUp")
    assert at() == 2
    page.press("c")
    crash = at()
    assert page.value("tardigrade.moment.kind") == 1 and "crash" in page.value(
        "document.querySelector('#list .selected').className")
    page.press("c", "C")
    assert at() == crash
    page.press("?")
    assert page.value("document.getElementById('help').open")
    page.press("Escape", "End")
    assert at() == last
    page.press("/")
    assert page.value("document.activeElement.id") == "words"
    page.press(*"mkdir", "Enter", "Home")
    assert page.value("tardigrade.moment.operation") == "MKDIR"
    page.press("Escape")
    assert page.value("tardigrade.filter.isNarrow") is False
    page.value("document.getElementById('tree').focus()")
    page.press("ArrowDown", "ArrowDown", "Enter")
    track = page.value("tardigrade.track.key")
    assert track and track in page.value("document.querySelector('.node h3').textContent")


def test_the_filter(page: Browser, recorded: Path) -> None:
    """By path, by domain, by words: the list shows just those, and steps keep to them."""
    past = past_of(recorded)
    home = b"/local/domain/3"
    wanted = [index for index, event, _ in moments_of(past) if isinstance(event, Change) and any(
        isinstance(key, bytes) and (key + b"/").startswith(home + b"/")
        for key, _, _ in event.differences)]
    page.value("void document.getElementById('words').focus()")
    page.press(*home.decode())
    assert page.value("tardigrade.shown") == wanted
    page.press("Enter", "Home")
    assert page.value("tardigrade.moment.index") == wanted[0]
    page.press("ArrowRight")
    assert page.value("tardigrade.moment.index") == wanted[1]
    paths = {row[0] for row in page.value(ROWS)}
    assert paths and all(path.startswith(home.decode()) or home.decode().startswith(path)
                         for path in paths if path[0] == "/")
    page.press("Escape")
    page.value("""void (document.getElementById('who').value = 'server',
        document.getElementById('who').dispatchEvent(new Event('input', {bubbles: true})))""")
    page.frame()
    assert page.value("tardigrade.shown") == [
        index for index, event, _ in moments_of(past)
        if isinstance(event, Change) and event.type == 0xFFFF]


def test_the_address(page: Browser, recorded: Path) -> None:
    """#seq= goes to a record, steps change it, and it carries the filter."""
    path = recorded.with_suffix(".html")
    page.open(path, "#seq=123&path=/local/domain/0&node=/local")
    assert page.value("[tardigrade.moment.sequence, tardigrade.filter.paths, "
                      "tardigrade.track.key]") == [123, ["/local/domain/0"], "/local"]
    page.value("void (location.hash = '#seq=200')")
    page.wait_for("tardigrade.moment.sequence === 200")
    page.press("ArrowRight")
    page.wait_for("/seq=2\\d\\d/.test(location.hash) && !location.hash.includes('seq=200')")
    page.open(path, "#seq=99999999&domain=77&kind=nonsense")
    assert page.value("tardigrade.moment.index") == page.value(
        "tardigrade.past.moments.length") - 1


def test_the_time_line(page: Browser) -> None:
    """Press and slide; the wheel looks closer; by time instead of by order."""
    box = page.value("(() => { const box = document.getElementById('cursor')"
                     ".getBoundingClientRect(); return [box.x, box.y, box.width]; })()")
    x, y = box[0] + 64 + (box[2] - 78) / 2, box[1] + 60
    page.mouse("mousePressed", x, y)
    page.frame()
    half = page.value("tardigrade.past.moments.length") / 2
    middle = page.value("tardigrade.moment.index")
    assert abs(middle - half) < half * 0.02
    page.mouse("mouseMoved", x + 100, y)
    page.mouse("mouseReleased", x + 100, y, buttons=0)
    page.frame()
    moved = page.value("tardigrade.moment.index")
    assert moved > middle and not page.value("document.getElementById('tip').hidden")
    page.mouse("mouseWheel", x, y, button="none", buttons=0, deltaX=0, deltaY=-120)
    page.wait_for("tardigrade.timeline.to - tardigrade.timeline.from "
                  "< tardigrade.past.moments.length - 1")
    page.press("0", "t")
    assert page.value("tardigrade.timeline.isByTime && tardigrade.timeline.from === 0")
    places = page.value("[...tardigrade.timeline.places]")
    assert places == sorted(places) and page.value("tardigrade.moment.index") == moved


def test_the_clock(page: Browser) -> None:
    """Local time with its distance to UTC, and UTC by one key."""
    page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    page.press("z", "z", "Home")
    local = page.value("document.getElementById('detail').innerText")
    assert "UTC+05:30" in local and "+05:30" in page.value(
        "document.getElementById('zone').textContent")
    page.press("z")
    utc = page.value("document.getElementById('detail').innerText")
    assert "UTC+" not in utc and "UTC" in utc and utc != local
    page.press("z")
    page.call("Emulation.setTimezoneOverride", timezoneId="")


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""
    def light(colour: str) -> float:
        parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                  for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    high, low = sorted([light(one), light(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light(page: Browser, scheme: str) -> None:
    """Follows what the reader prefers; whatever is read has contrast."""
    page.prefer(color_scheme=scheme)
    back = page.value("colour('panel')")
    assert (contrast(back, "#ffffff") < 2) is (scheme == "light")
    for text_, behind in [("text", "panel"), ("dim", "panel"), ("dim", "back"), ("put", "put-back"),
                          ("edit", "edit-back"), ("cut", "cut-back"), ("accent", "chosen"),
                          ("crash", "cut-back"), ("text", "chosen"), ("dim", "well"),
                          ("faint", "panel"), ("damage", "panel")]:
        found = contrast(page.value(f"colour('{text_}')"), page.value(f"colour('{behind}')"))
        assert found >= 4.5, (scheme, text_, behind, found)
    page.prefer(color_scheme="light")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080), (1000, 700), (480, 800)])
def test_sizes(page: Browser, width: int, height: int) -> None:
    """Nothing sticks out; on a laptop all is in sight without scrolling the page."""
    page.resize(width, height)
    assert page.value("document.documentElement.scrollWidth") <= width
    if width >= 1000:
        assert page.value("document.documentElement.scrollHeight") <= height
        assert page.value("document.getElementById('tree').clientHeight") > 200


def measure(browser: Browser) -> dict[str, Any]:
    """Milliseconds of steps and jumps, drawing and layout included: median and 95 %."""
    found: dict[str, Any] = browser.value("""(async () => {
        const found = {}, size = tardigrade.past.moments.length;
        const ways = {step: (k) => size - 100 + k, jump: (k) => Math.floor(size * (k * 0.618 % 1))};
        for (const [name, place] of Object.entries(ways)) {
          const times = [];
          for (let k = 0; k < 40; k++) {
            const begin = performance.now();
            tardigrade.go(place(k));
            tardigrade.draw();
            void document.body.offsetHeight;
            times.push(performance.now() - begin);
            await new Promise(requestAnimationFrame);
          }
          times.sort((a, b) => a - b);
          found[name] = [times[20], times[37]].map((time) => Math.round(time * 10) / 10);
        }
        return found; })()""")
    return found


def test_smooth_at_10000_changes(browser: Browser, busy: Path) -> None:
    """A step or a jump anywhere is drawn within a frame, by far; the log has gone round."""
    browser.resize(1280, 720)
    browser.open(write_page(busy))
    assert "cleaned away" in browser.value("document.getElementById('notes').textContent")
    found = measure(browser)
    print(f"\n10,000 changes: median and 95 % in ms: {found}")
    assert found["step"][0] < STEP_MS_MAX and found["jump"][0] < STEP_MS_MAX, found
    assert not browser.problems


@pytest.mark.slow
def test_smooth_with_20000_nodes(browser: Browser, tmp_path: Path) -> None:
    """All of them unfolded."""
    region = tmp_path / "region"
    region.write_bytes(busy_host(10_000, 20_000, 16 << 20).medium.bytes)
    browser.resize(1280, 720)
    browser.open(write_page(region))
    browser.press("e")
    found = measure(browser)
    print(f"\n20,000 nodes: median and 95 % in ms: {found}")
    browser.press("End")
    assert browser.value("tardigrade.tree.rows.length") > 20_000
    assert found["step"][0] < STEP_MS_MAX and found["jump"][0] < STEP_MS_MAX, found
