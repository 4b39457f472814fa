# SPDX-License-Identifier: Apache-2.0
"""Crashes on purpose: what CONTROL crash can do to a server that was started with --drill.

X1. A drill is carried out between two turns, when its answer is on its way and the intent names
    nobody: so no request gets points for it, and there may be thousands of drills.
X2. With `now` it happens inside of the request, which is then as guilty as any poison (P6).
X3. What needs C comes from the image's module _drill, or else from faulthandler; what needs the
    kernel from /dev/drill. A kind that cannot be had here is not there.
Knows nothing of turns. Change with: docs/OPERATING.md."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable
from functools import partial

from app.errors import Einval
from app.limits import free_memory, is_image

try:
    import _drill  # type: ignore[import-not-found]
except ImportError:  # outside of the image
    _drill = None

DEVICE = "/dev/drill"
EXIT_DRILL = 3
NOW = "now"
CHUNK_SIZE = 1 << 20
MEMORY_MAX = 256 << 20  # where the machine is not ours alone

# kind -> function of _drill, of faulthandler
IN_C = {
    "page-fault": ("page_fault", "_sigsegv"),
    "null": ("null", "_read_null"),
    "general-protection": ("general_protection", ""),
    "illegal-instruction": ("illegal_instruction", ""),
    "stack-overflow": ("stack_overflow", "_stack_overflow"),
    "divide": ("divide", "_sigfpe"),
    "c-loop": ("loop", ""),
    "heap": ("corrupt_heap", ""),
}
WILD_WRITE = "wild-write"  # the only one with arguments: ADDRESS SIZE


class Drill:
    """The kinds of crash that can be had here, and the one that is due."""

    def __init__(self, device: str = DEVICE) -> None:
        self.due: Callable[[], None] | None = None
        self._acts: dict[str, Callable[..., None]] = {
            "exception": _raise, "exit": _exit, "memory": _exhaust, "loop": _loop,
            "abort": os.abort}
        for kind, (ours, theirs) in IN_C.items():
            act = getattr(_drill, ours, None) or getattr(faulthandler, theirs, None)
            if act is not None:
                self._acts[kind] = act
        if hasattr(_drill, "wild_write"):
            self._acts[WILD_WRITE] = _drill.wild_write
        self._acts.update((kind, partial(_ask_kernel, device, kind))
                          for kind in _kinds_of_kernel(device))

    @property
    def kinds(self) -> list[str]:
        """The kinds that can be had here."""
        return list(self._acts)

    def order(self, words: list[str]) -> None:
        """CONTROL crash KIND [ADDRESS SIZE] [now]. Raises Einval for a kind that is not here."""
        is_now = words[-1] == NOW
        kind, *texts = (words[:-1] if is_now else words) or [""]
        act = self._acts.get(kind)
        if act is None or len(texts) != (2 if kind == WILD_WRITE else 0):
            raise Einval
        numbers = [_number(text) for text in texts]
        if is_now:
            act(*numbers)
        else:
            self.due = partial(act, *numbers)

    def carry_out(self) -> None:
        """Die, if a drill is due; whoever calls has seen to it that no request is to blame."""
        due, self.due = self.due, None
        if due is not None:
            due()


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if text.isascii() and text[:1].isdigit():
            return int(text, 0)
    raise Einval


def _raise() -> None:
    raise RuntimeError("a drill")


def _exit() -> None:
    sys.exit(EXIT_DRILL)


def _exhaust() -> None:
    """Take memory until there is none: all of it in the image, a bounded part elsewhere."""
    most = sys.maxsize if is_image() else min(MEMORY_MAX, free_memory() // 2)
    taken = []
    for _ in range(most // CHUNK_SIZE):
        taken.append(bytearray(b"\1") * CHUNK_SIZE)
    raise MemoryError("a drill")


def _loop() -> None:
    while True:
        pass


def _kinds_of_kernel(device: str) -> list[str]:
    """What the kernel can have, a line each; nothing, if it does not offer any."""
    try:
        with open(device, encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _ask_kernel(device: str, kind: str) -> None:
    with open(device, "wb", buffering=0) as file:
        file.write(kind.encode())
