# SPDX-License-Identifier: Apache-2.0
"""P4, P6: --quota undid what had been set at run time at every restart, and a start that failed was
remembered as why the life before it had ended. Method: the real server, the same command line
again, and one that cannot work in between. Cannot show: what a supervisor does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.oracle.ours import CHECKOUT
from tests.oracle.xsclient import MessageType, strings
from tests.rings.house import House


def test_a_quota_set_at_run_time_stays(make_house: Callable[..., House]) -> None:
    house = make_house("--quota", "nodes=5000")
    with house.client() as dom0:
        assert dom0.call(MessageType.GET_QUOTA, strings("nodes")) == b"5000\0"
        dom0.call(MessageType.SET_QUOTA, strings("nodes", 7))
    house.server.kill9()
    house.server.start()
    with house.client() as dom0:
        assert dom0.call(MessageType.GET_QUOTA, strings("nodes")) == b"7\0"


def test_a_failed_start_is_no_death(make_house: Callable[..., House]) -> None:
    house = make_house()
    guest = house.guest(1)
    house.server.kill9()
    done = subprocess.run(
        [sys.executable, "-m", "app", "--socket", house.server.socket_path, "--region",
         house.server.region_path], cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
        check=False)
    assert done.returncode == 1 and "name the --host" in done.stderr
    assert str(house.server.region_path) in done.stderr
    house.server.start()
    assert guest.get_perms("/local/domain/1") == ["n1"]
    assert "the last life ended by" not in house.server.log
