# SPDX-License-Identifier: Apache-2.0
"""xsdump SOURCE html FILE: the past as one page that needs nothing else.

P1. The page asks for nothing: no network, no other file. Its policy (CSP) forbids it, and allows no
    script and no style but those whose hashes it names.
P2. What guests have written travels as deflated base64, never as markup; the page's scripts insert
    it as text.
P3. FILE is there whole or not at all, and readable for its owner only: a store may hold secrets.
Knows nothing of what is shown where: page/ does."""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from persist.region import Medium
from tools.dump.output import Output
from tools.dump.pagedata import moments
from tools.dump.past import Past, read_past
from tools.dump.text import printable

ASSETS = Path(__file__).resolve().parent / "page"
SCRIPTS = ("data.js", "model.js", "filter.js", "shapes.js", "rows.js", "tree.js", "list.js",
           "detail.js", "timeline.js", "tracks.js", "logmap.js", "page.js")
LAST = 20_000
EXIT_USAGE = 2


def add_arguments(commands: Any) -> None:
    """The command line of `html`."""
    parser = commands.add_parser(
        "html", help="one page to look back with, in a browser",
        description="Write the past as one page that needs nothing else: the tree at any moment, "
        "what changed, who did it, and why lives ended. Only its owner may read it.",
        epilog="example: tools/xsdump REGION html past.html; past.html#seq=123 is a moment")
    parser.add_argument("file", metavar="FILE", help="is written; - is the standard output")
    parser.add_argument("--last", metavar="N", type=_count, default=LAST,
                        help=f"only the last N changes (default: {LAST})")
    parser.set_defaults(command=write_page)


def write_page(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Write the page; returns the exit code."""
    past = read_past(region)
    page = build(region, past, options.last, str(options.source))
    if options.file == "-":
        sys.stdout.buffer.write(page)
        return 0
    try:
        _replace(options.file, page)
    except OSError as error:
        print(f"xsdump: {options.file}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def build(region: Medium, past: Past, last: int, name: str) -> bytes:
    """The page."""
    progress = Progress(past)
    data = moments(region, past, last, progress.told)
    progress.end()
    data["name"], data["written"] = printable(name), time.time_ns() // 1000
    return assemble(json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode())


def assemble(data: bytes) -> bytes:
    """The parts in page/, and the data, as one file."""
    style = (ASSETS / "page.css").read_text("utf-8")
    scripts = [(ASSETS / name).read_text("utf-8") for name in SCRIPTS]
    policy = "; ".join([
        "default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'",
        f"style-src {_hash(style)}", f"script-src {' '.join(map(_hash, scripts))}"])
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = base64.b64encode(packer.compress(data) + packer.flush()).decode()
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "data": f'<script type="application/octet-stream" id="data">{packed}</script>',
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    page = (ASSETS / "page.html").read_text("utf-8")
    for name, part in parts.items():
        head, mark, rest = page.partition(f"<!-- {name} -->")
        assert mark, name
        page = head + part + rest
    return page.encode()


class Progress:
    """How far it is, for who waits at a terminal."""

    def __init__(self, past: Past) -> None:
        self._first = past.first
        self._last = past.found.state.sequence if past.found and past.found.state else 0
        self._is_shown = sys.stderr.isatty()
        self._next_s = time.monotonic() + 0.5

    def told(self, sequence: int) -> None:
        """All up to `sequence` is read."""
        if self._is_shown and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 0.2
            done, all_ = sequence - self._first + 1, self._last - self._first + 1
            print(f"\r{done:,} of {all_:,} records, {100 * done // max(all_, 1)} %  ",
                  end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line empty."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _replace(path: str, data: bytes) -> None:
    """Raises OSError, and leaves the old file then. What is no file, a device, is written to."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            device.write(data)
        return
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".xsdump-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of changes, not {text!r}")
    return int(text)
