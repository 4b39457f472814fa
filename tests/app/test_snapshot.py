# SPDX-License-Identifier: Apache-2.0
"""The server as in the image: a snapshot is taken before anything is opened, and nothing is
imported after it; the region is a device, its end is said in another. Method: the real process,
with a terminal as the snapshot's device, and the rest of the image as imaged.py has it.

Cannot show: that the memory is restored (tests/image)."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.limits import RESERVE
from app.snapshot import SnapshotError, take
from tests.app.test_main import TIMEOUT_S, run
from tests.oracle.ours import CHECKOUT
from tests.oracle.xsclient import SocketConnection, XenstoreError

MIB = 1 << 20
FREE = RESERVE + 2 * MIB


class Terminal:
    """A device that answers what it was told to."""

    def __init__(self) -> None:
        self._fd, self._other = os.openpty()
        tty.setraw(self._other)
        self.path = os.ttyname(self._other)

    def say(self, answer: bytes) -> None:
        """What the next read finds."""
        os.write(self._fd, answer)

    def close(self) -> None:
        """It is gone."""
        os.close(self._fd)
        os.close(self._other)


@pytest.fixture
def device() -> Iterator[Terminal]:
    """A snapshot's device, of a test that may freeze objects."""
    one = Terminal()
    yield one
    one.close()
    gc.unfreeze()


@pytest.mark.parametrize("answer", ["taken", "restored", "off"])
def test_the_answers(device: Terminal, answer: str) -> None:
    device.say(answer.encode())
    before = len(os.listdir("/proc/self/fd"))
    assert take(device.path) == answer
    assert gc.get_freeze_count() > 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("answer", [b"", b"other", b"\xff"])
def test_a_device_that_is_another(device: Terminal, answer: bytes) -> None:
    if answer:
        device.say(answer)
    with pytest.raises(SnapshotError, match="no snapshot was taken") as caught:
        take(device.path)
    assert device.path in str(caught.value)


def test_what_is_no_such_device(tmp_path: Path) -> None:
    """One line, exit code 1, and neither waiting nor a region."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("taken")
    for path, words in (("fifo", "no device"), ("file", "no device"), (".", "no device"),
                        ("missing", "No such file"), ("/dev/null", "answers b''")):
        code, text = run("--socket", str(tmp_path / "s"), "--region", str(tmp_path / "r"),
                         "--snapshot", str(tmp_path / path))
        assert code == 1 and words in text and text.count("\n") == 1, text
    assert not (tmp_path / "r").exists() and not (tmp_path / "s").exists()


# -- all of the image


class Imaged:
    """The server in an image of its own, in a directory."""

    def __init__(self, directory: Path, device: Terminal) -> None:
        self.directory, self.device = directory, device
        self.socket_path = directory / "socket"
        for name, size in (("region", MIB), ("crash", 0)):
            with open(directory / name, "wb") as file:
                file.truncate(size)
        self.said = ""

    @contextlib.contextmanager
    def life(self, answer: bytes = b"taken",
             *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """One life, which must have ended when the block does."""
        self.device.say(answer)
        (self.directory / "said").write_text("")
        with open(self.directory / "said", "w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.app.imaged", "--socket", str(self.socket_path),
                 "--region", str(self.directory / "region"), "--crash-file",
                 str(self.directory / "crash"), "--snapshot", self.device.path, "--drill",
                 "--log-level", "debug", "--watchdog", "1", *arguments], cwd=CHECKOUT,
                stderr=said, stdout=said, text=True, env={
                    **os.environ, "IMAGED_FREE": str(FREE), "IMAGED_DRILL": "1"})
        try:
            self._wait_until_listening(process)
            yield process
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            self.said = (self.directory / "said").read_text()

    def _wait_until_listening(self, process: subprocess.Popen[str]) -> None:
        while "try: XENSTORED_PATH" not in (said := (self.directory / "said").read_text()):
            assert process.poll() is None, said
            os.sched_yield()

    def client(self) -> SocketConnection:
        """A new connection."""
        return SocketConnection(self.socket_path)

    def crash_text(self) -> str:
        """What the crash device holds."""
        return (self.directory / "crash").read_text()


@pytest.fixture
def image(tmp_path: Path, device: Terminal) -> Imaged:
    """Nothing runs yet."""
    return Imaged(tmp_path, device)


def test_lives_in_the_image(image: Imaged, time_limit: None) -> None:
    """Crash after crash; the kernel's account is told; nothing is imported, drawn or made on the
    way, whatever is asked for; the numbers are those of the memory."""
    with image.life() as process, image.client() as client:
        client.write("/a", "1")
        for words in (["memreport"], ["check"], ["log", "on"], ["quota"], ["help"],
                      ["quota", "0"], ["crash"], ["print", "hello"]):
            client.control(*words)
        report = client.control("memreport")
        assert f"free memory: {FREE >> 10} KiB" in report, report
        for words in (["nonsense"], ["logfile", str(image.directory / "crash")]):
            with pytest.raises(XenstoreError, match="EINVAL"):
                client.control(*words)
        assert "recovering" not in image.crash_text()
        client.control("crash", "exception")
        process.wait(TIMEOUT_S)
    assert "snapshot: taken" in image.said and ": new" in image.said
    assert f"admits at most {(FREE - RESERVE) // (64 + 40 + 520)} nodes, " in image.said
    assert "the memory is the limit" in image.said
    check(image)
    with open(image.directory / "crash", "a") as file:
        file.write("kernel: exit 1 in restart 1\n")
    for kind, told in (
            ("abort", "RuntimeError: a drill; kernel: exit 1 in restart 1"),
            ("loop", "Fatal Python error: Aborted"),
            ("general-protection", "no progress in its time: File"),
            ("illegal-instruction", "Fatal Python error: Bus error"),
            ("wild-write", "Fatal Python error: Illegal instruction")):
        with image.life(b"restored") as process, image.client() as client:
            assert client.read("/a") == b"1"
            client.control("crash", kind, *(["0x1000", "16"] if kind == "wild-write" else []))
        assert "snapshot: restored" in image.said
        assert f"the last life ended by: {told}" in image.said
        check(image)


def check(image: Imaged) -> None:
    """What must never be."""
    assert "imported late" not in image.said and "drawn early" not in image.said, image.said
    assert {*os.listdir(image.directory)} <= {"crash", "region", "said", "socket"}


def test_a_damaged_device_is_not_kept(image: Imaged, time_limit: None) -> None:
    with image.life() as process, image.client() as client:
        client.write("/a", "1")
        process.kill()
    with open(image.directory / "region", "r+b") as region:
        region.seek(0x10000 + 60)
        region.write(b"\xff")
    with image.life(b"off") as process, image.client() as client:
        client.directory("/")
        process.kill()
    assert "snapshot: off" in image.said and "DAMAGED at log position 0x0" in image.said
    (line,) = [line for line in image.said.splitlines() if "not kept" in line]
    assert "no place for a copy of a device" in line
    check(image)


def test_another_size_of_the_device_is_refused(image: Imaged, time_limit: None) -> None:
    with pytest.raises(AssertionError, match="1048576 bytes, not the 2097152 asked for"), \
            image.life(b"taken", "--region-size", "2M"):
        pass
    with image.life(b"taken", "--region-size", "1M") as process:
        process.send_signal(signal.SIGKILL)
