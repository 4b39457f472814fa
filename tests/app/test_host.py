# SPDX-License-Identifier: Apache-2.0
"""Which domains exist: none without a hypervisor, those of the directory on the simulated one.
Method: files as the directory's specification (oracle/README.md, 4) has them. Cannot show: Xen."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import Enomem
from app.host import NoHost, SimHost, make_host


@pytest.mark.parametrize("text, exists", [
    ("running", True), ("running\n", True), ("shutdown", True), ("crashed\n", True),
    ("dying", False), ("dead", False), ("", False), ("\n", False), ("RUNNING", False),
    ("running2", False), ("x" * 10000, False), ("\xff\xfe", False)])
def test_states_of_the_simulated_directory(tmp_path: Path, text: str, exists: bool) -> None:
    (tmp_path / "state.5").write_bytes(text.encode("latin-1"))
    host = make_host(f"sim:{tmp_path}")
    assert host.exists(5) is exists
    assert not host.exists(6)


def test_reserved_numbers_are_no_domains(tmp_path: Path) -> None:
    for domid in (0x7FF0, 0x7FF5, 65535):
        (tmp_path / f"state.{domid}").write_text("running")
        assert not SimHost(str(tmp_path)).exists(domid)


def test_it_is_asked_anew_each_time(tmp_path: Path) -> None:
    host = SimHost(str(tmp_path))
    assert not host.exists(5)
    (tmp_path / "state.5").write_text("running")
    assert host.exists(5)
    (tmp_path / "state.5").unlink()
    assert not host.exists(5)


def test_a_file_that_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    """Neither yes nor no: the request fails with an error that is no verdict on the domain."""
    (tmp_path / "state.5").mkdir()
    with pytest.raises(Enomem):
        SimHost(str(tmp_path)).exists(5)


def test_no_host_has_no_domains() -> None:
    assert isinstance(make_host("none"), NoHost)
    assert not any(NoHost().exists(domid) for domid in (1, 2, 32751))


@pytest.mark.parametrize("spec", ["", "sim", "sim:", "sim:/no/such/directory", "xen", "none:x"])
def test_wrong_arguments_are_told_in_one_line(spec: str) -> None:
    with pytest.raises(ValueError, match="--host") as caught:
        make_host(spec)
    assert "\n" not in str(caught.value)
