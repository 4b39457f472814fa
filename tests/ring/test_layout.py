# SPDX-License-Identifier: Apache-2.0
"""The page's offsets, sizes and constants are those of Xen's own header. Method: a small C program
prints them, compiled against libxen-dev's xen/io/xs_wire.h; skipped where that is not installed.

Cannot show: `evtchn_port` and features that are younger than the installed header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ring import layout

FIELDS = {"req": layout.REQ_OFFSET, "rsp": layout.RSP_OFFSET, "req_cons": layout.REQ_CONS,
          "req_prod": layout.REQ_PROD, "rsp_cons": layout.RSP_CONS, "rsp_prod": layout.RSP_PROD,
          "server_features": layout.SERVER_FEATURES, "connection": layout.CONNECTION,
          "error": layout.ERROR}
CONSTANTS = {
    "XENSTORE_RING_SIZE": layout.RING_SIZE,
    "MASK_XENSTORE_IDX(0xffffffff)": layout.RING_MASK,
    "XENSTORE_SERVER_FEATURE_RECONNECTION": layout.FEATURE_RECONNECTION,
    "XENSTORE_SERVER_FEATURE_ERROR": layout.FEATURE_ERROR,
    "XENSTORE_CONNECTED": layout.CONNECTED,
    "XENSTORE_RECONNECT": layout.RECONNECT,
    "XENSTORE_ERROR_NONE": layout.ERROR_NONE,
    "XENSTORE_ERROR_COMM": layout.ERROR_COMM,
    "XENSTORE_ERROR_RINGIDX": layout.ERROR_RINGIDX,
    "XENSTORE_ERROR_PROTO": layout.ERROR_PROTO,
    "GNTTAB_RESERVED_XENSTORE": layout.GREF_XENSTORE,
}
INCLUDES = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/xs_wire.h>
"""


def compile_and_run(directory: Path, program: str) -> list[int]:
    """The numbers that a C program prints. Skips the test if there is no compiler or header."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    probe = subprocess.run(["gcc", "-fsyntax-only", "-xc", "-"], input=INCLUDES, text=True,
                           capture_output=True, timeout=60, check=False)
    if probe.returncode != 0:
        pytest.skip("Xen's headers are not installed: package libxen-dev (make test-setup)")
    source, binary = directory / "print.c", directory / "print"
    source.write_text(INCLUDES + program)
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", str(binary), str(source)], check=True,
                   timeout=60)
    done = subprocess.run([str(binary)], capture_output=True, text=True, check=True, timeout=60)
    return [int(line) for line in done.stdout.split()]


def test_offsets_sizes_and_constants(tmp_path: Path) -> None:
    """In one program, whose lines come in the order of the tables above."""
    shown = [f"offsetof(struct xenstore_domain_interface, {name})" for name in FIELDS]
    shown += [f"sizeof(((struct xenstore_domain_interface *)0)->{name})" for name in FIELDS]
    shown += [*CONSTANTS, "sizeof(struct xsd_sockmsg)"]
    body = "\n".join(f'    printf("%lld\\n", (long long)({one}));' for one in shown)
    found = compile_and_run(tmp_path, f"int main(void) {{\n{body}\n    return 0;\n}}\n")
    sizes = [layout.RING_SIZE] * 2 + [4] * (len(FIELDS) - 2)
    assert dict(zip(shown, found, strict=True)) == dict(zip(
        shown, [*FIELDS.values(), *sizes, *CONSTANTS.values(), 16], strict=True))


def test_indices_are_words_that_one_store_can_change() -> None:
    """L1: aligned, behind both rings, inside of the page, none twice."""
    words = [layout.REQ_CONS, layout.REQ_PROD, layout.RSP_CONS, layout.RSP_PROD,
             layout.SERVER_FEATURES, layout.CONNECTION, layout.ERROR, layout.EVTCHN_PORT]
    assert words == list(range(2 * layout.RING_SIZE, 2 * layout.RING_SIZE + 32, 4))
    assert max(words) + 4 <= layout.PAGE_SIZE


def test_features_are_bits_of_their_own() -> None:
    features = [layout.FEATURE_RECONNECTION, layout.FEATURE_ERROR, layout.FEATURE_WATCH_DEPTH,
                layout.FEATURE_DOMID_ANY]
    assert features == [1, 2, 4, 8]
