# SPDX-License-Identifier: Apache-2.0
"""CONTROL logfile and memreport take plain files only, and never the region.

A fifo blocked the server for everybody; a report over the region emptied it. Found in review."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.errors import Einval
from app.services import Console


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """Fifo, directory, device, missing directory: EINVAL at once; the region: untouched."""
    console = Console("error")
    os.mkfifo(tmp_path / "fifo")
    region = tmp_path / "region"
    region.write_bytes(b"precious")
    status = os.stat(region)
    console.protected.add((status.st_dev, status.st_ino))
    (tmp_path / "link").symlink_to(region)
    for path in ("fifo", ".", "missing/file", "region", "link", "nul\0name"):
        with pytest.raises(Einval):
            console.write_file(str(tmp_path / path), "report")
        with pytest.raises(Einval):
            console.log_to(str(tmp_path / path))
    assert region.read_bytes() == b"precious"


def test_a_report_replaces_and_a_log_appends(tmp_path: Path) -> None:
    """As C xenstored does."""
    console = Console("info")
    path = tmp_path / "file"
    path.write_text("something longer than the report\n")
    console.write_file(str(path), "report\n")
    assert path.read_text() == "report\n"
    console.log_to(str(path))
    console.say("line")
    assert path.read_text() == "report\nline\n"
