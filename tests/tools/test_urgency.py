# SPDX-License-Identifier: Apache-2.0
"""Who is first, and when not. Method: a process of its own that becomes first, where the system
lets it; its own view of itself, and that of what it starts.

Cannot show: what it is good for (tests/xen, scenario rescue)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30
WORD = "import os; print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)"
PROGRAM = f"""
import os, subprocess, sys
from tools.boot import urgency
def say():
    print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, flush=True)
urgency.be_first()
say()
with urgency.patient():
    say()
say()
subprocess.run([sys.executable, "-c", {WORD!r}])
"""


def test_first_but_for_what_is_not_urgent() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE,
                          text=True, timeout=TIMEOUT_S, check=True)
    first, patient, again, child = map(int, done.stdout.split())
    if first != os.SCHED_RR:
        pytest.skip("the system refuses")
    assert (patient, again, child) == (os.SCHED_OTHER, os.SCHED_RR, os.SCHED_OTHER)
