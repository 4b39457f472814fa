# SPDX-License-Identifier: Apache-2.0
"""What an engineer on call asks the region of a host whose xenstore has crashed: which request was
being executed, what did guest 7 do last, when did this key change and who changed it, who watches
it. Method: the real process (tests/crash/poisoned.py) with guests on rings, dead or alive."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_poison import introduce, serve_until, server, sim, wait_for_death
from tests.oracle.guest import SimXen
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import MessageType, SocketConnection, XenstoreError, strings

__all__ = ["server", "sim"]  # fixtures
XSDUMP = str(Path(__file__).resolve().parents[2] / "tools" / "xsdump")


def dump(server: OurServer, *words: str) -> str:
    """What the command says of the server's region; it must succeed."""
    done = subprocess.run([XSDUMP, str(server.region_path), *words], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(server: OurServer, *words: str) -> list[dict[str, Any]]:
    """The same, for programs."""
    return [json.loads(line) for line in dump(server, *words, "--json").splitlines()]


def test_the_crashed_host_is_explained(server: OurServer, sim: SimXen,
                                       tmp_path: Path) -> None:
    seven, eight = introduce(server, sim, 7, 8)
    seven.write("state", "4")
    seven.watch("device", "mine")
    tx_id = seven.transaction_start()
    seven.write("data/half", "done", tx_id=tx_id)
    with pytest.raises(XenstoreError):
        seven.read("data/none", tx_id=tx_id)
    eight.write("name", "another")
    req_id = eight.send(MessageType.READ, strings("/poison/raise"))
    wait_for_death(server)

    # Dead, and nobody has started it again.
    (life,) = objects(server, "crashes")
    assert life["number"] == 1 and life["death"] is None and life["end"] == "a crash"
    assert "crashed: RuntimeError: poison" in dump(server, "info")
    told = "\n".join(life["text"])
    assert told.startswith("RuntimeError: poison\n") and "| Traceback" in told
    assert "had not reached its commit point" in told
    assert "in flight: dom8 conn " in told and "in its ring's page" in told

    # It dies of it twice, then it runs.
    assert serve_until(server, eight, req_id) == (b"EIO", 1)
    first, second, third = objects(server, "crashes")
    assert [one["end"] for one in (first, second, third)] == [
        "a crash", "a crash", "it runs, or has just crashed"]
    assert second["death"]["requests"] == first["death"]["requests"]
    (request,) = first["death"]["requests"]
    assert (request["domid"], request["operation"]) == (8, "READ")
    assert "Traceback" in first["cause"] and first["death"]["took_us"] > 0
    text = dump(server, "crashes")
    assert "in flight: dom8 conn" in text and "READ /poison/raise (request" in text
    assert "had not reached its commit point" in text and "| Traceback" in text

    # In git, too: the tag says it, at the last commit of the life.
    history = tmp_path / "history"
    dump(server, "git", "--bare", str(history))
    told = subprocess.run(["git", "-C", str(history), "for-each-ref", "--format=%(contents)",
                           "refs/tags/crash/1"], capture_output=True, text=True).stdout
    assert told.startswith("life 1 ended by: RuntimeError: poison\n")
    assert "in flight: dom8 conn" in told and "READ /poison/raise" in told and "| Trace" in told

    # The last thing guest 7 did; when a key changed, and who did it.
    (last,) = objects(server, "log", "-d", "7", "-n", "1", "/local/domain/7")
    assert last["operation"] == "WRITE" and last["differences"] == [
        {"path": "/local/domain/7/state", "before": None,
         "after": {"value": "4", "permissions": "n7"}}]
    changes = objects(server, "log", "/local/domain/8/name")
    assert [(one["domid"], one["operation"], one["differences"][-1]["after"]["value"])
            for one in changes] == [(0, "WRITE", "guest 8"), (0, "SET_PERMS", "guest 8"),
                                    (8, "WRITE", "another")]
    (blamed,) = objects(server, "blame", "/local/domain/8/name")
    assert blamed["domid"] == 8 and blamed["sequence"] == changes[-1]["sequence"]

    _compare_connections(server, tx_id)


def _compare_connections(server: OurServer, tx_id: int) -> None:
    """What guest 7 is connected with, has open, and watches."""
    ring = next(one for one in objects(server, "connections") if one["domid"] == 7)
    assert ring["state"] == "connected" and ring["watches"] == 1
    assert ring["transactions"] == [tx_id] and ring["consumed"] > 0
    text = dump(server, "connections", "-d", "7")
    assert f"transaction {tx_id}, begun " in text
    assert "\n        WRITE data/half done\n        READ data/none: ENOENT\n" in text
    assert f".{tx_id}.0 = WRITE data/half done]" in dump(server, "log", "-d", "7", "-n", "2")
    assert [(one["domid"], one["path"], one["token"]) for one in objects(
        server, "watch", "/local/domain/7/device/vbd")] == [
            (7, "/local/domain/7/device", "mine")]
    assert objects(server, "watch", "/local/domain/7/devices") == []


def test_a_clean_end_and_a_kill(server: OurServer) -> None:
    with SocketConnection(server.socket_path) as dom0:
        dom0.write("/a", "1")
    server.stop()
    server.start()
    with SocketConnection(server.socket_path) as dom0:
        dom0.write("/a", "2")
    server.kill9()
    server.start()
    ends = [one["end"] for one in objects(server, "crashes", "--all")]
    assert ends == ["on purpose", "a crash", "it runs, or has just crashed"]
    killed = objects(server, "crashes")[0]
    assert killed["number"] == 2 and killed["cause"] == "" and killed["changes"] == 2
    assert "life 2 begins" in dump(server, "log") and "after a crash" in dump(server, "log")
    assert dump(server, "tree", "/a", "--at", "crash:1") == '/a = "1" (n0)\n'
    assert dump(server, "diff", "life:2", "end", "/a") == '- /a = "1" (n0)\n+ /a = "2" (n0)\n'
