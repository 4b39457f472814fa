# SPDX-License-Identifier: Apache-2.0
"""xsdrill: have a server crash, see it come back, and say how long that took.

It sends CONTROL crash to a server that was started with --drill, asks on until its connection ends,
and connects again until a READ is answered. The time runs from the order to that answer."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time

from app import wire
from app.wire import Request

EXIT_USAGE = 2
EXIT_FAILED = 1
PATIENCE_S = 60.0
PAUSE_S = 0.001

EXAMPLES = """examples:
  tools/xsdrill                        lists the kinds of crash that the server can have
  tools/xsdrill page-fault             one crash
  tools/xsdrill exception --times 20   twenty, one after the other
  tools/xsdrill power-off              the end of the machine, without a way back
  tools/xsdrill exception now          inside of the request, which is blamed: the third is EIO

exit codes: 0 it came back, 1 it did not, or refused, 2 wrong arguments
"""


class DrillError(Exception):
    """The drill has failed; the text says how."""


class Client:
    """One connection to the server at `path`. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE_S)
        self._sock.connect(path)

    def ask(self, kind: int, payload: bytes) -> Request | None:
        """The answer; None if the connection ends before. Raises OSError."""
        self._sock.sendall(wire.HEADER.pack(kind, 0, 0, len(payload)) + payload)
        data = b""
        while (taken := wire.take(data, 0) if data else None) is None:
            more = self._sock.recv(4096)
            if not more:
                return None
            data += more
        return taken[0]

    def wait_for_end(self) -> None:
        """Ask for this and that until the connection ends: what is broken inside shows only when
        it is used. Raises DrillError."""
        began = time.monotonic()
        try:
            while self.ask(wire.XS_READ, b"/\0") is not None:
                time.sleep(PAUSE_S)
                if time.monotonic() - began > PATIENCE_S:
                    raise DrillError(f"the server still lives after {PATIENCE_S:g} s")
        except TimeoutError as error:
            raise DrillError(f"the server says nothing for {PATIENCE_S:g} s") from error
        except ConnectionError:
            pass

    def close(self) -> None:
        """Let go of it."""
        self._sock.close()


def drill(path: str, words: list[str]) -> float:
    """One crash; the seconds until the next life has answered. Raises DrillError, OSError."""
    client = Client(path)
    began = time.monotonic()
    try:
        answer = client.ask(wire.XS_CONTROL, b"".join(word.encode() + b"\0" for word in
                                                   ["crash", *words]))
        if answer is not None and answer.type == wire.XS_ERROR:
            error = answer.payload.rstrip(bytes(1)).decode()
            raise DrillError(f"{' '.join(words)}: {error}" + (
                " (no such kind, or it needs other words: without any, the kinds are listed)"
                if error == "EINVAL" else ""))
        client.wait_for_end()
    except ConnectionError:
        pass  # it died at once
    finally:
        client.close()
    ended = time.monotonic()
    while time.monotonic() - ended < PATIENCE_S:
        try:
            client = Client(path)
            try:
                if client.ask(wire.XS_READ, b"/\0") is not None:
                    return time.monotonic() - began
            finally:
                client.close()
        except OSError:
            pass
        time.sleep(PAUSE_S)
    raise DrillError(f"the server has not come back within {PATIENCE_S:g} s")


def kinds(path: str) -> str:
    """The kinds of crash that the server can have. Raises DrillError, OSError."""
    client = Client(path)
    answer = client.ask(wire.XS_CONTROL, b"crash\0")
    client.close()
    if answer is None or answer.type == wire.XS_ERROR:
        raise DrillError("the server was started without --drill")
    return answer.payload.rstrip(b"\0").decode()


def main(arguments: list[str]) -> int:
    """Crash it as often as asked; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="xsdrill", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Have a xenstore server crash on purpose, and see it come back. The server is "
        "the one at $XENSTORED_PATH, else at ./run/socket.")
    parser.add_argument("words", metavar="KIND", nargs="*", help="what to have; none: list them")
    parser.add_argument("--times", metavar="N", type=int, default=1, help="(default %(default)s)")
    options = parser.parse_args(arguments)
    if options.times < 1:
        parser.error(f"--times {options.times}: expected 1 or more")
    path = os.environ.get("XENSTORED_PATH") or os.path.join("run", "socket")
    try:
        if not options.words:
            print(kinds(path))
        for _ in range(options.times if options.words else 0):
            print(f"{' '.join(options.words)}: served again after "
                  f"{drill(path, options.words) * 1000:.0f} ms", flush=True)
    except (DrillError, OSError) as error:
        why = error if isinstance(error, DrillError) else f"{path}: {error.strerror or error}"
        print(f"xsdrill: {why}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
