# SPDX-License-Identifier: Apache-2.0
"""xsdump without a process of its own: what it says, and its exit code. Many times faster; cannot
show what only a process shows: how it is found and started, and its memory."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from tools import xsdump


def dump(source: Path | str, *words: str) -> tuple[int, str]:
    """Exit code, and all it said on both outputs. What it raises is the caller's to see."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = xsdump.main([str(source), *words])
        except SystemExit as end:  # argparse's way of refusing, and of --help
            code = end.code if isinstance(end.code, int) else 1
    return code, said.getvalue()
