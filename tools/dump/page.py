# SPDX-License-Identifier: Apache-2.0
"""xsdump SOURCE html FILE: the past as one page that needs nothing else.

P1. The page asks for nothing: no network, no other file. Its policy (CSP) forbids it, and allows no
    script and no style but those whose hashes it names.
P2. What guests have written travels as deflated base64, never as markup; the page's scripts insert
    it as text.
P3. FILE is there whole or not at all, and readable for its owner only. It replaces nothing but a
    page: a slip of the hand must not cost a region.
Knows nothing of what is shown where: page/ does."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from persist.region import Medium
from tools.dump.arguments import positive
from tools.dump.outfile import OutputError, create, new_file
from tools.dump.output import Output
from tools.dump.pagedata import moments
from tools.dump.past import Past, read_past
from tools.dump.progress import Progress
from tools.dump.text import printable

ASSETS = Path(__file__).resolve().parent / "page"
SCRIPTS = ("data.js", "model.js", "filter.js", "shapes.js", "rows.js", "tree.js", "list.js",
           "detail.js", "timeline.js", "tracks.js", "logmap.js", "page.js")
LAST = 20_000
DOCTYPE = b"<!doctype html>"


def add_arguments(commands: Any) -> None:
    """The command line of `html`."""
    parser = commands.add_parser(
        "html", help="one page to look back with, in a browser",
        description="Write the past as one page that needs nothing else: the tree at any moment, "
        "what changed, who did it, and why lives ended. Only its owner may read it.",
        epilog="example: tools/xsdump REGION html past.html; past.html#seq=123 is a moment")
    parser.add_argument("file", metavar="FILE", help="is written; - is the standard output")
    parser.add_argument("--last", metavar="N", type=positive, default=LAST,
                        help=f"only the last N changes (default: {LAST})")
    parser.set_defaults(command=write_page)


def write_page(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Write the page; returns the exit code."""
    past = read_past(region)
    page = build(region, past, options.last, str(options.source))
    if options.file == "-":
        sys.stdout.buffer.write(page)
        return 0
    _write(options.file, str(options.source), page)
    return 0


def build(region: Medium, past: Past, last: int, name: str) -> bytes:
    """The page."""
    progress = Progress(past.first, past.newest, "records")
    data = moments(region, past, last, lambda sequence: progress.tell(
        sequence, sequence - past.first + 1))
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


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _write(path: str, source: str, page: bytes) -> None:
    """Raises OutputError, and leaves what is there then. What is no file, a device, is written to;
    a file is replaced only if it is a page."""
    path = os.path.realpath(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            Path(path).write_bytes(page)
            return
        is_there = os.path.exists(path) and os.path.getsize(path) > 0
        if is_there and not _is_page(path):
            raise OutputError(f"{path}: there is such a file, and it is no page: it stays")
        with new_file(path, source, is_forced=os.path.exists(path)) as place, create(place) as file:
            file.write(page)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _is_page(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(DOCTYPE)).lower() == DOCTYPE
