# SPDX-License-Identifier: Apache-2.0
"""machine.py without a machine: what is taken for a verdict, what for success, and
which image is booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xen.machine import END, Run, Verdict, split_files, verdicts_of

LIST = [Verdict("xl-list", True, "12.5"), Verdict("traffic", False, "0 requests of 500")]


@pytest.mark.parametrize("console", [
    "boot\r\n\r\nVERDICT xl-list ok 12.5\r\n\r\nVERDICT traffic FAILED 0 requests of 500\r\n",
    "VERDICT xl-list ok 12.5\r\r\nVERDICT traffic FAILED 0 requests of 500",
    "\nVERD(XEN) d1 booted\r\nICT xl-list ok 1(XEN) two\n(XEN) lines\n2.5\nVERDICT tra"
    "(XEN)\nffic FAILED 0 requests of 500\n",
    "  | VERDICT no ok this is quoted\nVERDICT xl-list ok 12.5\n"
    "VERDICT traffic FAILED 0 requests of 500\n",
])
def test_verdicts_are_found(console: str) -> None:
    assert verdicts_of(console) == LIST


def test_a_verdict_needs_no_text() -> None:
    assert verdicts_of("VERDICT a ok\r\nVERDICT b ok \r\n") == [Verdict("a", True, ""),
                                                               Verdict("b", True, "")]


def test_what_a_success_is() -> None:
    good = Verdict("a", True, "")
    assert Run([good], True, END, 1.0).complaint() is None
    assert Run([good, *LIST], True, END, 1.0).complaint() == "traffic: 0 requests of 500"
    assert "its last verdict was a" in str(Run([good], False, "", 1.0).complaint())
    assert "its last verdict was none" in str(Run([], False, "", 1.0).complaint())
    assert "none" in str(Run([], True, END, 1.0).complaint())


def test_an_image_may_lie_anywhere(tmp_path: Path) -> None:
    kernel = tmp_path / "other-kernel"
    kernel.write_bytes(b"kernel")
    words, files = split_files({"STUB_KERNEL": str(kernel), "STUB_RAMDISK": "initrd.cpio", "A": 1})
    assert words == {"STUB_KERNEL": "other-kernel", "STUB_RAMDISK": "initrd.cpio", "A": 1}
    assert files == {"lab/stub/other-kernel": b"kernel"}
    assert split_files({"A": 1}) == ({"A": 1}, {})
