# SPDX-License-Identifier: Apache-2.0
"""The command line: what is refused with one clear line and which exit code, and a clean end.

Method: the real process, as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 20


class Daemon:
    """A server process in a directory of its own, on a small region."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket_path = str(directory / "socket")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "--socket", self.socket_path,
             "--region", str(directory / "region"), "--region-size", "1M", *arguments],
            stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def wait_until_listening(self) -> None:
        """Read what it says, until it listens."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "try: XENSTORED_PATH=" in line:
                return
        raise AssertionError("no start: " + "".join(self.lines))

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=TIMEOUT_S)
        self.lines += rest.splitlines(keepends=True)
        return self.process.returncode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A server that listens."""
    one = Daemon(tmp_path)
    one.wait_until_listening()
    yield one
    one.end(signal.SIGKILL)


def run(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the server with arguments that must fail; returns exit code and stderr."""
    done = subprocess.run([sys.executable, "-m", "app", *arguments], stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, text=True, timeout=TIMEOUT_S,
                          env={**os.environ, **(environment or {})})
    return done.returncode, done.stderr


def test_clean_end_and_what_it_says(daemon: Daemon, tmp_path: Path) -> None:
    """SIGTERM: exit code 0, no socket left, and the next life knows it was meant."""
    assert "new" in daemon.lines[0] and "admits at most" in daemon.lines[1]
    assert daemon.socket_path in daemon.lines[2]
    assert oct(os.stat(daemon.socket_path).st_mode)[-3:] == "600"
    assert daemon.end() == 0
    assert not os.path.exists(daemon.socket_path)
    again = Daemon(tmp_path)
    again.wait_until_listening()
    assert "clean after a clean end" in again.lines[0]
    again.end(signal.SIGKILL)
    third = Daemon(tmp_path)
    third.wait_until_listening()
    assert "clean after a crash" in third.lines[0]
    third.end(signal.SIGKILL)


def test_second_server_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    """Neither the region nor the socket is shared, and the first server is unharmed."""
    code, text = run("--socket", str(tmp_path / "other"), "--region", str(tmp_path / "region"))
    assert code == 1 and "another server uses this region" in text
    code, text = run("--socket", daemon.socket_path, "--region", str(tmp_path / "r2"),
                     "--region-size", "1M")
    assert code == 1 and "another server listens" in text
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(daemon.socket_path)


def test_damaged_region_is_kept_and_told(daemon: Daemon, tmp_path: Path) -> None:
    """Corruption at the start: loud, with offset and reason, and the image beside the region."""
    daemon.end(signal.SIGKILL)
    region = tmp_path / "region"
    image = bytearray(region.read_bytes())
    image[0x10000 + 60] ^= 1
    region.write_bytes(image)
    again = Daemon(tmp_path)
    again.wait_until_listening()
    again.end(signal.SIGKILL)
    said = "".join(again.lines)
    assert "corrupt" in said and "DAMAGED at log position 0x0" in said, said
    assert (tmp_path / "region.damaged-1").read_bytes() == image


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("--region-size", "12Q"), 2, "--region-size 12Q"),
    (("--region-size", "64K"), 1, "region size 65536"),
    (("--quota", "nodes"), 2, "--quota nodes"),
    (("--quota", "nodes=-1"), 2, "nodes=-1"),
    (("--quota", "bananas=3"), 2, "bananas"),
    (("--host", "sim:/no/such/place"), 2, "/no/such/place"),
    (("--host", "xen"), 2, "--host xen"),
    (("--host", "sim:"), 2, "expected none, linux, linux:guests, unikraft or sim:DIR"),
    (("--host", "none:x"), 2, "--host none:x"),
    (("--log-level", "loud"), 2, "loud"),
    (("--bananas",), 2, "--bananas"),
    (("--socket", "/no/such/place/socket"), 1, "/no/such/place/socket"),
    (("--region", "/no/such/place/region"), 1, "/no/such/place/region"),
    (("--region", "/proc/region"), 1, "/proc/region"),
    (("--socket", "/tmp/" + "x" * 120), 1, "107 bytes"),
    (("--region", "/etc/passwd"), 1, "/etc/passwd"),
    (("--region", "/dev/null"), 1, "/dev/null: this is a device without a size"),
    (("--region", "/dev"), 1, "/dev: cannot open the region: Is a directory"),
    (("--snapshot", "/no/such/device"), 1, "/no/such/device"),
])
def test_wrong_arguments(tmp_path: Path, arguments: tuple[str, ...], code: int,
                         words: str) -> None:
    """One line that names what was wrong; argparse adds its usage."""
    base = ["--socket", str(tmp_path / "s"), "--region", str(tmp_path / "r"),
            "--region-size", "1M"]
    got, text = run(*base, *arguments)
    assert got == code, text
    assert words in text.splitlines()[-1] and "Traceback" not in text


def test_a_second_server_takes_no_guests_away(tmp_path: Path) -> None:
    """One simulated Xen directory, one server; and a directory with too long a name has none."""
    (tmp_path / "sim").mkdir()
    host = f"sim:{tmp_path / 'sim'}"
    first = Daemon(tmp_path, "--host", host)
    first.wait_until_listening()
    inode = os.stat(tmp_path / "sim" / "evtchn.sock").st_ino
    code, text = run("--socket", str(tmp_path / "s2"), "--region", str(tmp_path / "r2"),
                     "--region-size", "1M", "--host", host)
    assert code == 1 and "another server serves this simulated Xen directory" in text
    assert "Traceback" not in text and os.stat(tmp_path / "sim" / "evtchn.sock").st_ino == inode
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    again = Daemon(tmp_path, "--host", host)
    again.wait_until_listening()
    assert again.end() == 0
    (tmp_path / ("x" * 120)).mkdir()
    code, text = run("--socket", str(tmp_path / "s2"), "--region", str(tmp_path / "r2"),
                     "--region-size", "1M", "--host", f"sim:{tmp_path / ('x' * 120)}")
    assert code == 1 and "longer than the 107 bytes" in text and text.count("\n") == 1


def test_a_crash_file_of_ones_own(tmp_path: Path) -> None:
    """It is used, protected and removed; one that cannot be had costs a warning."""
    one = Daemon(tmp_path, "--crash-file", str(tmp_path / "words"))
    one.wait_until_listening()
    assert (tmp_path / "words").exists() and not (tmp_path / "region.crash").exists()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(one.socket_path)
        payload = b"logfile\0" + os.fsencode(tmp_path / "words") + b"\0"
        sock.sendall(bytes(12) + len(payload).to_bytes(4, "little") + payload)
        assert sock.recv(100)[16:] == b"EINVAL\0"
    assert one.end() == 0 and not (tmp_path / "words").exists()
    for path in (tmp_path / "no" / "words", tmp_path / "region"):
        two = Daemon(tmp_path, "--crash-file", str(path))
        two.wait_until_listening()
        assert two.end() == 0
        assert any("a death will be unexplained: " + str(path) in line for line in two.lines)


def test_full_tmpfs(tmp_path: Path) -> None:
    """No space for the region: one line, and no file is left."""
    code, text = run("--socket", str(tmp_path / "s"), "--region", "/dev/shm/tardigrade-test-full",
                     "--region-size", "1024G")
    assert code == 1 and "cannot reserve" in text and "Traceback" not in text
    assert not os.path.exists("/dev/shm/tardigrade-test-full")


def test_default_places(tmp_path: Path) -> None:
    """XENSTORED_PATH before XENSTORED_RUNDIR before ./run."""
    from app.__main__ import default_region, default_socket

    keep = {name: os.environ.pop(name, None) for name in ("XENSTORED_PATH", "XENSTORED_RUNDIR")}
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert default_socket() == "run/socket"
        os.environ["XENSTORED_RUNDIR"] = "/some/run"
        assert default_socket() == "/some/run/socket"
        os.environ["XENSTORED_PATH"] = "/some/socket"
        assert default_socket() == "/some/socket"
        assert default_region("a") != default_region("b")
        assert default_region("a") == default_region(str(tmp_path / "a"))
    finally:
        os.chdir(here)
        for name, value in keep.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def test_help_names_everything() -> None:
    """--help has examples and exit codes."""
    done = subprocess.run([sys.executable, "-m", "app", "--help"], capture_output=True, text=True,
                          timeout=TIMEOUT_S)
    assert done.returncode == 0
    for word in ("examples:", "exit codes:", "XENSTORED_PATH", "--quota", "64M"):
        assert word in done.stdout


def test_quota_on_the_command_line(tmp_path: Path) -> None:
    """A quota of the command line is in force, and stays for lives without it."""
    for arguments in (("--quota", "nodes=77"), ()):
        one = Daemon(tmp_path, *arguments)
        one.wait_until_listening()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(one.socket_path)
            sock.sendall(b"\x19\0\0\0" + bytes(8) + b"\x06\0\0\0nodes\0")
            assert sock.recv(100)[16:] == b"77\0"
        one.end(signal.SIGKILL)
