# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the image as this tree has it, a machine for all tests, and machines for one; and what
a failure prints: the consoles' ends, and the command that runs the test again.

Change with: machine.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import limited_to
from tests.qemu import counts
from tests.qemu.machine import Machine, build

TIME_LIMIT_S = 240
FULL_LIMIT_S = 3600
WATCHDOG_S = "2"
machines: list[Machine] = []  # that run; for what a failure prints


@pytest.fixture(autouse=True)
def limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends, whatever a machine does."""
    limit_s = FULL_LIMIT_S if request.node.get_closest_marker("full") else TIME_LIMIT_S
    with limited_to(limit_s):
        yield


@pytest.fixture(scope="session")
def image() -> None:
    """The image is the one of this tree."""
    build()


@pytest.fixture(scope="session")
def shared(image: None) -> Iterator[list[Machine]]:
    """Room for one machine; `machine` sees to it that it runs."""
    room: list[Machine] = []
    yield room
    for one in room:
        dispose(one)


@pytest.fixture
def machine(shared: list[Machine]) -> Machine:
    """The shared machine, running; with what earlier tests have left in its store."""
    if shared and not shared[0].is_running:
        dispose(shared.pop())
    if not shared:
        shared.append(Machine(arguments=("--drill", "--watchdog", WATCHDOG_S)))
        machines.append(shared[0])
        shared[0].start()
    return shared[0]


def dispose(machine: Machine) -> None:
    """It is not needed any more."""
    machines.remove(machine)
    machine.discard()


@pytest.fixture
def make_machine(image: None) -> Iterator[Callable[..., Machine]]:
    """Makes machines for this test alone, not yet switched on."""
    made: list[Machine] = []

    def make(**options: Any) -> Machine:
        made.append(Machine(**options))
        machines.append(made[-1])
        return made[-1]

    yield make
    for one in made:
        dispose(one)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item,
                              call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failure prints how the consoles end, and how to see it again."""
    report: Any = yield
    if report.failed:
        for machine in machines:
            report.sections.append(("a machine's console", machine.tail()))
        report.sections.append(("again", f"python -m pytest '{item.nodeid}'"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures."""
    for line in counts.lines:
        terminalreporter.write_line(line)
