# SPDX-License-Identifier: Apache-2.0
"""A browser and recorded regions, made once for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.browser import Browser
from tests.tools.pages import write_page
from tests.tools.recorded import record
from tests.tools.synthetic import busy_host


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        one.resize(1280, 720)
        yield one


@pytest.fixture(scope="package")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region that the real server has left behind."""
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="package")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 changes by ten domains, with the log gone round."""
    path = tmp_path_factory.mktemp("busy") / "region"
    path.write_bytes(busy_host(10_000, region_size=1 << 20).medium.bytes)
    return path


@pytest.fixture
def page(browser: Browser, recorded: Path) -> Iterator[Browser]:
    """The recorded workload's page, freshly opened."""
    page = recorded.with_suffix(".html")
    browser.resize(1280, 720)
    browser.open(page if page.exists() else write_page(recorded))
    yield browser
    assert browser.requests == [page.as_uri()], "the page asks for more than itself"
    assert not browser.problems
