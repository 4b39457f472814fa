# SPDX-License-Identifier: Apache-2.0
"""CONTROL commands: what they answer, whom they ask for it, and that junk is EINVAL, for then
xenstore-control prints the help. Method: tables of rows, with services that only remember.

Source: protocol reference 2.6. Cannot show: files and consoles (test_services), live update."""

from __future__ import annotations

from typing import Any

import pytest

from app import wire
from app.control import COMMANDS
from tests.app.world import World, house, nul

ROWS = [
    ("d0", "", "CONTROL check", "OK"),
    ("d0", "", "CONTROL check x", "EINVAL"),
    ("d0", "", "CONTROL log on", "OK"),
    ("d0", "", "CONTROL log off", "OK"),
    ("d0", "", "CONTROL log", "EINVAL"),
    ("d0", "", "CONTROL log maybe", "EINVAL"),
    ("d0", "", "CONTROL logfile /tmp/x", "OK"),
    ("d0", "", "CONTROL logfile /bad/x", "EINVAL"),
    ("d0", "", "CONTROL logfile", "EINVAL"),
    ("d0", "", "CONTROL memreport /tmp/x", "OK"),
    ("d0", "", "CONTROL memreport /bad/x", "EINVAL"),
    ("d0", "", "CONTROL memreport /tmp/x /tmp/y", "EINVAL"),
    ("d0", "", "CONTROL print hello", "OK"),
    ("d0", "", "CONTROL print", "EINVAL"),
    ("d0", "", "CONTROL print a b", "EINVAL"),
    ("d0", "", "CONTROL quota set nodes 5", "OK"),
    ("d0", "", "CONTROL quota set nodes 0", "EINVAL"),  # only SET_QUOTA can say 0
    ("d0", "", "CONTROL quota set nodes -1", "EINVAL"),
    ("d0", "", "CONTROL quota set nodes x", "EINVAL"),
    ("d0", "", "CONTROL quota set nodes 4294967296", "EINVAL"),
    ("d0", "", "CONTROL quota set other 5", "EINVAL"),
    ("d0", "", "CONTROL quota set soft-memory 5", "EINVAL"),
    ("d0", "", "CONTROL quota set nodes", "EINVAL"),
    ("d0", "", "CONTROL quota get nodes 5", "EINVAL"),
    ("d0", "", "CONTROL quota 9", "ENOENT"),
    ("d0", "", "CONTROL quota x", "EINVAL"),
    ("d0", "", "CONTROL quota-soft set memory 5", "OK"),
    ("d0", "", "CONTROL quota-soft set nodes 5", "EINVAL"),
    ("d0", "", "CONTROL quota-soft set memory 0", "EINVAL"),
    ("d0", "", "CONTROL quota-soft 1", "EINVAL"),
    ("d0", "", "CONTROL other", "EINVAL"),
    ("d0", "", "CONTROL CHECK", "EINVAL"),
    ("d0", "", (wire.XS_CONTROL, nul("")), "EINVAL"),
    ("d0", "", (wire.XS_CONTROL, nul("\xff")), "EINVAL"),
    ("d0", "", (wire.XS_CONTROL, nul("quota", "\xff")), "EINVAL"),
    ("g1", "", "CONTROL check", "EACCES"),
    ("g1", "", "CONTROL other", "EACCES"),
    ("g1", "", "CONTROL quota set nodes 5", "EACCES"),
    ("g1", "", "CONTROL print hello", "EACCES"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rows(row: tuple[Any, ...]) -> None:
    world = house()
    before, items = world.tree(), dict(world.store.items.values)
    world.run([row])
    assert world.tree() == before
    if row[3] != "OK":
        assert world.store.items.values == items and not world.services.calls


@pytest.mark.parametrize("words", [("quota", "\xb2"), ("quota", "1\xb9"),
                                   ("quota", "set", "nodes", "\xb3")])
def test_superscripts_are_no_digits(words: tuple[str, ...]) -> None:
    """The exception ends the server."""
    house().run([("d0", "", (wire.XS_CONTROL, nul(*words)), "EINVAL")])


def text(world: World, request: str) -> str:
    """The text that a command answers; one message holds it, with one NUL at the end."""
    payload = world.ask("d0", request)
    assert isinstance(payload, bytes) and payload.endswith(b"\0") and len(payload) <= 4096
    assert payload.count(b"\0") == 1
    return payload[:-1].decode()


def test_what_the_services_are_asked() -> None:
    world = house()
    for request in ("CONTROL log on", "CONTROL log off", "CONTROL logfile /tmp/l",
                    "CONTROL print hello", "CONTROL memreport /tmp/m"):
        assert world.ask("d0", request) == "OK"
    assert world.services.calls == [("log_requests", "True"), ("log_requests", "False"),
                                    ("log_to", "/tmp/l"), ("say", "hello"),
                                    ("write_file", "/tmp/m")]


def test_help_names_every_command() -> None:
    lines = text(house(), "CONTROL help").splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == sorted(COMMANDS)


def test_memreport_counts() -> None:
    world = house()
    world.ask("g1", "WATCH /pub t")
    world.start("g1")
    report = text(world, "CONTROL memreport")
    for line in (f"nodes: {len(world.tree())}", "watches: 1", "open transactions: 1",
                 f"clients: {len(world.clients)}", "process: fake"):
        assert line in report.splitlines()


def test_quota_lists_values_and_usage() -> None:
    world = house()
    world.run([("d0", "", "CONTROL quota set nodes 17", "OK"),
               ("d0", "", "GET_QUOTA nodes", b"17\0"),
               ("d0", "", "CONTROL quota-soft set memory 19", "OK"),
               ("d0", "", "GET_QUOTA soft-memory", b"19\0")])
    listed = {line.split(":")[0].strip(): line.split(":")[1].split()[0]
              for line in text(world, "CONTROL quota").splitlines()[1:]}
    assert listed["nodes"] == "17" and listed["watches"] == "128" and "soft-memory" not in listed
    assert "19" in text(world, "CONTROL quota-soft")
    world.ask("g1", "WATCH /pub t")
    world.start("g1")
    world.ask("g1", "WRITE name other")
    usage = dict(line.split(":") for line in text(world, "CONTROL quota 1").splitlines()[1:])
    assert {name.strip(): int(value) for name, value in usage.items()} == {
        "nodes": 3, "watches": 1, "transactions": 1, "outstanding": 0,
        "memory": world.store.tree.owned_size(1)}


def test_check_tells_what_is_wrong() -> None:
    world = house()
    world.is_paranoid = False
    world.store.tree.bytes += 1
    assert "wrong" in text(world, "CONTROL check")
