# SPDX-License-Identifier: Apache-2.0
"""What commands print: a line for people or an object for programs, through a pager, in colour.

W1. Every line has its object: --json prints that instead, one per line; so both tell the same.
W2. Colour and pager only where a terminal is at the other end.
Knows nothing of regions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from tools.dump.text import text

COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35",
           "cyan": "36", "dim": "2", "bold": "1"}


class Output:
    """Where a command's findings go."""

    def __init__(self, is_json: bool = False, colour: str = "auto", has_pager: bool = True) -> None:
        is_terminal = sys.stdout.isatty()
        self.is_json = is_json
        self.has_colour = not is_json and (colour == "always" or (
            colour == "auto" and is_terminal and "NO_COLOR" not in os.environ))
        self._pager: subprocess.Popen[str] | None = None
        self._stream = sys.stdout
        if is_terminal and has_pager and not is_json:
            self._page()

    def say(self, line: str, **fields: Any) -> None:
        """One finding: as a line, or as an object of `fields`. Without fields only people are
        told."""
        if not self.is_json:
            print(line, file=self._stream)
        elif fields:
            print(json.dumps(fields, default=_plain), file=self._stream)

    def note(self, words: str) -> None:
        """What people are told where otherwise there would be nothing, or not all; no program."""
        self.say(self.paint("dim", f"({words})"))

    def paint(self, colour: str, words: str) -> str:
        """`words` in a colour of COLOURS, where there are colours."""
        return f"\x1b[{COLOURS[colour]}m{words}\x1b[0m" if self.has_colour and words else words

    def flush(self) -> None:
        """Whatever was said is to be seen now."""
        self._stream.flush()

    def close(self) -> None:
        """Nothing follows; wait for the pager's reader."""
        if self._pager is None:
            self._stream.flush()
            return
        with contextlib.suppress(BrokenPipeError):  # the reader has seen enough
            self._stream.close()
        while self._pager.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # it is the pager's: the terminal, too
                self._pager.wait()

    def _page(self) -> None:
        words = os.environ.get("PAGER", "less").split()
        if not words or words == ["cat"] or shutil.which(words[0]) is None:
            return
        self._pager = subprocess.Popen(words, stdin=subprocess.PIPE, text=True,
                                       env={"LESS": "FRX", **os.environ})
        assert self._pager.stdin is not None
        self._stream = self._pager.stdin


def _plain(value: Any) -> Any:
    """What JSON has no word for: bytes as C xenstore prints them."""
    if isinstance(value, bytes):
        return text(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
