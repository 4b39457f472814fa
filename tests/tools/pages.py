# SPDX-License-Identifier: Apache-2.0
"""What the page of xsdump html is to show, from Past, and what it shows, from its elements.

Knows nothing of how regions are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.path import ROOT
from persist.find import open_source
from tests.tools.browser import Browser
from tests.tools.test_xsdump import xsdump
from tools.dump.past import Change, Event, Moved, Past, read_past
from tools.dump.state import State
from tools.dump.text import permissions, text

ROWS = """[...document.querySelectorAll('#tree .row:not([hidden])')]
  .sort((a, b) => a.dataset.index - b.dataset.index)
  .map((row) => [row.dataset.path, row.className.split(' ')[1] ?? '',
    ...['value', 'perms'].map((name) => (row.querySelector(`.${name} ins`)
      ?? row.querySelector(`.${name}`))?.textContent ?? ''),
    ...['value', 'perms'].map((name) => row.querySelector(`.${name} del`)?.textContent ?? '')])"""


def write_page(region: Path, *words: str) -> Path:
    """The page of a region."""
    page = region.with_suffix(".html")
    code, said = xsdump(region, "html", str(page), *words)
    assert (code, said) == (0, ""), said
    return page


def past_of(region: Path) -> Past:
    source = open_source(str(region))
    past = read_past(source)
    source.close()
    return past


def moments_of(past: Past) -> Iterator[tuple[int, Event, State]]:
    """The moments that the page numbers, and the state at each."""
    events = (event for event in past.walk() if not isinstance(event, Moved))
    for index, event in enumerate(events):
        yield index, event, past.state


Rows = list[list[str]]


class Model:
    """What the tree's rows are to be at a moment, from Past."""

    def __init__(self, event: Event, state: State) -> None:
        self.event = event
        self.there: Rows = [
            [text(path), f'"{text(node.value)}"' if node.value else "", permissions(node)]
            for path in state.below(ROOT) for node in [state.nodes[path]]]
        self.differences: list[Any] = [
            one for one in (event.differences if isinstance(event, Change) else [])
            if isinstance(one.key, bytes)]
        self.removed: Rows = [
            [text(path), f'"{text(before.value)}"' if before.value else "", permissions(before)]
            for path, before, _ in self.differences if path not in state.nodes]

    def compare(self, rows: Rows) -> None:
        """The page's rows are these, in this order, and what changed is marked."""
        rows = [row for row in rows if row[0][0] == "/"]
        assert [[row[0], *row[2:4]] for row in rows if row[1] != "removed"] == self.there
        assert sorted([row[0], *row[2:4]] for row in rows if row[1] == "removed") == sorted(
            self.removed)
        marked = {row[0]: row for row in rows if row[1]}
        assert marked.keys() == {text(path) for path, _, _ in self.differences}
        for path, before, after in self.differences:
            if before is not None and after is not None:
                _, _, value, _, old_value, old_perms = marked[text(path)]
                if before.value != after.value:
                    assert (old_value, value) == (f'"{text(before.value)}"',
                                                  f'"{text(after.value)}"')
                if before.perms is not after.perms:
                    assert old_perms == permissions(before)


def compare(browser: Browser, wanted: dict[int, Model]) -> None:
    """All of them, by the page's elements: unfolded, and in a window that has room for all."""
    browser.value("void (document.getElementById('moments').hidden = true)")
    browser.resize(1280, 12_000)
    browser.press("e")
    found = browser.value(f"""{list(wanted)}.map((index) => {{
        tardigrade.go(index);
        tardigrade.draw();
        return {ROWS}; }})""")
    for model, rows in zip(wanted.values(), found, strict=True):
        model.compare(rows)
