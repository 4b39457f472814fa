# SPDX-License-Identifier: Apache-2.0
"""`console.py GUEST TEXT`: `xl console` on a terminal: what the guest says is seen, a typed line
reaches it (it says GUEST HEARD and the line), and the escape character ends it."""

from __future__ import annotations

import os
import pty
import select
import sys
import time

TIME_S = 60.0
ESCAPE = b"\x1d"  # Ctrl-]


def main(guest: str, text: str) -> int:
    """The exit code."""
    pid, fd = pty.fork()
    if not pid:
        os.execvp("xl", ["xl", "console", guest])
    said = b""
    wanted = [(b"GUEST ", text.encode() + b"\n"), (b"GUEST HEARD " + text.encode(), ESCAPE)]
    end_s = time.monotonic() + TIME_S
    while time.monotonic() < end_s:
        if not select.select([fd], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(fd, 4096)
        except OSError:  # a terminal that nobody has open any more
            break
        said += data
        if wanted and wanted[0][0] in said:
            os.write(fd, wanted.pop(0)[1])
            said = b""
    print(said.decode("utf-8", "replace"))
    if wanted:
        print(f"{wanted[0][0]!r} was not seen")
        return 1
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
