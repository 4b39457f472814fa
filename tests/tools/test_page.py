# SPDX-License-Identifier: Apache-2.0
"""The page of xsdump html shows the past as it was, needs nothing but itself, and lets nothing that
a guest has written act.

Method: a recorded workload of the real server, and synthetic ones; the page in headless Chromium,
asked what is in its elements; the model is what Past.walk() says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from app import wire
from app.path import ROOT
from tests.tools.browser import Browser
from tests.tools.pages import Model, compare, moments_of, past_of, write_page
from tests.tools.recorded import LIVES
from tests.tools.synthetic import Host, boot, busy_host, damaged
from tests.tools.test_xsdump import XSDUMP, xsdump
from tools.dump.past import Begun, Change, Lost
from tools.dump.text import permissions, text

pytestmark = pytest.mark.usefixtures("time_limit")

def test_the_tree_at_many_moments(page: Browser, recorded: Path) -> None:
    """Removals, transactions, lives and every hundredth moment: exactly the state of then."""
    seen = {"removed": 0, "transaction": 0, "crash": 0, "perms": 0}
    wanted = {}
    for index, event, state in moments_of(past_of(recorded)):
        kinds = {"crash"} if isinstance(event, Begun) else set()
        if isinstance(event, Change):
            if any(after is None for _, _, after in event.differences):
                kinds.add("removed")
            if event.type == wire.XS_TRANSACTION_END:
                kinds.add("transaction")
            if event.type == wire.XS_SET_PERMS:
                kinds.add("perms")
        if index % 100 == 0 or any(seen[kind] < 4 for kind in kinds):
            wanted[index] = Model(event, state)
            for kind in kinds:
                seen[kind] += 1
    assert min(seen.values()) >= 4 and seen["crash"] == LIVES, seen
    compare(page, wanted)


def test_who_and_what(page: Browser, recorded: Path) -> None:
    """The moment in full: who has asked, the operation, the life; and what its lives say."""
    for index, event, _ in moments_of(past_of(recorded)):
        if not isinstance(event, Begun) and not (isinstance(event, Change) and index % 97 == 0):
            continue
        page.value(f"void tardigrade.go({index})")
        page.frame()
        said = page.value("document.getElementById('detail').innerText")
        assert f"record\n{event.sequence}" in said, said
        if isinstance(event, Begun):
            assert f"life {event.life.number} begins" in said
            assert "ended on purpose" in said or "nothing was there" in said or "killed" in said
        elif event.type != 0xFFFF:
            assert f"domain {event.domid}" in said and f"connection {event.conn_id}" in said
            assert f"pid {event.pid}" in said and f"request {event.req_id}" in said
    page.press("End")
    assert "commit point" in page.value("document.getElementById('detail').innerText")


def test_what_guests_write_is_text(page: Browser, recorded: Path) -> None:
    """Markup in a value is shown, never believed; bytes that are no text are escaped."""
    index = next(index for index, event, _ in moments_of(past_of(recorded))
                 if isinstance(event, Change) and any(
                     after is not None and b"onerror" in getattr(after, "value", b"")
                     for _, _, after in event.differences))
    page.value(f"void tardigrade.go({index})")
    page.frame()
    for place in ("detail", "tree"):
        said = page.value(f"document.getElementById('{place}').textContent")
        assert "</script><img src=x onerror=document.title='owned'>\\xff\\xfe\\x00" in said
    page.press("/", *"onerror", "Enter")
    assert "owned" not in page.value("document.title")
    assert page.value("document.images.length") == 0
    assert page.value("document.querySelectorAll('script').length") == page.value(
        "document.head.querySelectorAll('script').length + "
        "[...document.body.children].filter((one) => one.tagName === 'SCRIPT').length")


def test_the_policy(browser: Browser, recorded: Path) -> None:
    """Even if markup got in: no script of others runs, and nothing is fetched. The file's name is
    only text, too."""
    region = recorded.with_name("<img src=x onerror=alert(1)>")
    region.write_bytes(recorded.read_bytes())
    page = recorded.with_name("named.html")
    assert xsdump(region, "html", str(page))[0] == 0
    browser.open(page)
    assert browser.value("document.images.length") == 0 and not browser.problems
    assert browser.value("document.getElementById('name').textContent") == region.name
    browser.value("""void document.body.insertAdjacentHTML('beforeend',
        '<img src=http://127.0.0.1:9/x onerror="window.owned = 1">')""")
    browser.value("""void (() => { const one = document.createElement('script');
        one.textContent = 'window.owned = 1'; document.body.append(one); })()""")
    browser.frame()
    assert browser.value("window.owned ?? 0") == 0
    assert sum("Content Security Policy" in one for one in browser.problems) >= 2


def test_damage_is_shown(browser: Browser, tmp_path: Path) -> None:
    """Where it lies, in words, in the list, on the time line and in the log's picture."""
    host = Host(busy_host(300, region_size=1 << 20).medium)
    region = tmp_path / "region"
    region.write_bytes(damaged(host))
    lost = next((index, event) for index, event, _ in moments_of(past_of(region))
                if isinstance(event, Lost))
    browser.resize(1280, 720)
    browser.open(write_page(region))
    assert "1 damaged place" in browser.value("document.getElementById('summary').textContent")
    has_colour = """((id) => { const canvas = document.getElementById(id);
        const want = colour('damage').match(/../g).map((two) => parseInt(two, 16));
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour('damage').slice(at, at + 2), 16));
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let at = 0; at < data.length; at += 4)
          if (data[at] === r && data[at + 1] === g && data[at + 2] === b) return true;
        return false; })"""
    assert browser.value(has_colour + "('tracks')")
    assert browser.value(has_colour + "('map')")
    browser.press("Home", "c")
    while browser.value("tardigrade.moment.kind") != 4:
        browser.press("c")
    assert browser.value("tardigrade.moment.index") == lost[0]
    said = browser.value("document.getElementById('detail').innerText")
    assert f"0x{lost[1].position:x}" in said and "do not verify" in said
    assert not browser.problems
    browser.press("Home")
    assert not browser.value(has_colour + "('map')"), "it was not known then"
    browser.open(write_page(region, "--last", "20"))
    assert browser.value("tardigrade.past.damages.length") == 0 and browser.value(
        has_colour + "('map')"), "it is still there, though before the first moment"


def test_nothing_recorded(browser: Browser, tmp_path: Path) -> None:
    """An empty region has a page, too, and no key breaks it."""
    region = tmp_path / "region"
    region.write_bytes(bytes(1 << 20))
    browser.open(write_page(region))
    browser.press("ArrowLeft", "ArrowRight", "Home", "End", "c", "n", "e", "i", "t", "z", "+", "0")
    assert "Nothing is recorded" in browser.value("document.getElementById('notes').textContent")
    assert not browser.problems


def test_the_newest_changes_only(browser: Browser, tmp_path: Path) -> None:
    """--last N: the page says what it leaves out, and its states are the same."""
    host = busy_host(400, region_size=1 << 20)
    boot(host, 12)
    region = tmp_path / "region"
    region.write_bytes(host.medium.bytes)
    past = past_of(region)
    total = sum(isinstance(event, Change) for event in past.walk())
    browser.open(write_page(region, "--last", "150"))
    assert f"{total - 150} older changes" in browser.value(
        "document.getElementById('notes').textContent")
    size = sum(1 for _ in moments_of(past))
    first = size - browser.value("tardigrade.past.moments.length") + 1
    compare(browser, {index - first: Model(event, state)
                      for index, event, state in moments_of(past)
                      if index >= first and index % 13 == 0})
    assert not browser.problems


def test_the_rows_at_more_moments(page: Browser, recorded: Path) -> None:
    """Many more moments, by what the rows are made from, without elements."""
    page.press("e")
    found = page.value("""tardigrade.past.moments.map((moment) => treeRows(tardigrade.past, moment,
        tardigrade.tree.folds, () => true, false).filter((row) => row.after && !row.track.isItem)
        .map(({track, after}) => [track.key, after.value, after.perms].join(' ')).join('|'))""")
    for index, _, state in moments_of(past_of(recorded)):
        if index % 5 and index + 20 < len(found):
            continue
        assert found[index] == "|".join(" ".join([
            text(path), text(state.nodes[path].value), permissions(state.nodes[path])])
            for path in state.below(ROOT)), index


def test_old_history_cleaned_away(browser: Browser, busy: Path) -> None:
    """What was there before the history begins is known as far as Past knows it."""
    page = busy.with_suffix(".html")
    browser.open(page if page.exists() else write_page(busy))
    compare(browser, {index: Model(event, state)
                      for index, event, state in moments_of(past_of(busy)) if index % 1500 == 0})


def test_the_command(recorded: Path, tmp_path: Path) -> None:
    """- is the standard output; FILE is private and whole; what cannot be written is said."""
    page = tmp_path / "page.html"
    assert xsdump(recorded, "html", str(page)) == (0, "")
    assert page.stat().st_mode & 0o777 == 0o600
    done = subprocess.run([XSDUMP, str(recorded), "html", "-"], capture_output=True, timeout=30)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.startswith(b"<!doctype html>") and done.stdout.endswith(b"</html>\n")
    assert not re.search(rb"https?://", done.stdout)
    code, said = xsdump(recorded, "html", str(tmp_path / "missing" / "page.html"))
    assert code == 2 and said.count("\n") == 1 and "No such file" in said
    assert xsdump(recorded, "html", str(tmp_path), "--last", "0")[0] == 2
    assert xsdump(recorded, "html", "/dev/null") == (0, "") and not Path("/dev/null").is_file()
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_last_life_that_has_said_why_it_ends(browser: Browser, recorded: Path,
                                               tmp_path: Path) -> None:
    """It counts as a crash, and looks like one; without its words nobody can know."""
    region, counts = tmp_path / "region", []
    region.write_bytes(recorded.read_bytes())
    for words in ("", "RuntimeError: said"):
        Path(f"{region}.crash").write_text(words)
        browser.open(write_page(region))
        counts.append(browser.value("tardigrade.past.crashes.filter(isDeath).length"))
    assert counts[1] == counts[0] + 1
    assert "RuntimeError: said" in browser.value("document.querySelector('.ending.bad').innerText")


def test_nothing_but_a_page_is_replaced(recorded: Path, tmp_path: Path) -> None:
    """Neither what is read, nor another region, nor anybody's file; by whatever name."""
    page, region, link = tmp_path / "page.html", tmp_path / "other.region", tmp_path / "link"
    region.write_bytes(recorded.read_bytes()[:4096])
    link.symlink_to(recorded)
    for one in (recorded, link, region):
        before = one.read_bytes()
        code, said = xsdump(recorded, "html", str(one))
        assert code == 2 and "it is no page" in said and one.read_bytes() == before
    for _ in range(2):
        assert xsdump(recorded, "html", str(page)) == (0, "")
    page.write_bytes(b"")
    assert xsdump(recorded, "html", str(page)) == (0, "") and page.stat().st_size > 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "other.region", "page.html"]
