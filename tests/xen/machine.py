# SPDX-License-Identifier: Apache-2.0
"""Boot a Xen host in QEMU's software emulation, run one scenario in dom0, collect the verdicts.

B1. The machine is ended by its process id, and leaves nothing but what was asked to be kept.
B2. Xen writes its own lines into the middle of dom0's: they are taken out before verdicts are
    looked for.
B3. A scenario that does not say that it has ended has failed, whatever its verdicts were.
B4. dom0 beats (dom0/init), so a machine that says nothing for SILENCE_S hangs as a whole: it is
    ended, and what QEMU knows of its processor is put behind its console.
Knows nothing of what scenarios do. Change with: dom0/init."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.oracle.packages import need_tools
from tests.xen.image import Image, build, write_initrd

QEMU = "qemu-system-x86_64"
# Why these: tests/xen/README.md. Without a comma in what is Linux's.
CPU = "max,-smap,-smep,-la57,-pku,-rdtscp"
XEN_OPTIONS = ("com1=115200,8n1 console=com1 dom0_mem=600M dom0_max_vcpus=1 loglvl=info "
               "guest_loglvl=all noreboot=1 spec-ctrl=eager-fpu")
LINUX_OPTIONS = "console=hvc0 quiet rootfstype=ramfs"
MEMORY_MIB = 1536
XEN_LINE = re.compile(r"\(XEN\)[^\r\n]*\r?\n")
VERDICT = re.compile(r"^VERDICT (\S+) (ok|FAILED) ?([^\r\n]*)", re.M)
END = "LAB END"
DEFAULTS = {"SERVER": "ours", "SERVER_OPTIONS": "", "TRAFFIC": 300, "KILLS": 10,
            "STUB_WORDS": "log=debug drill=on --drill --watchdog 3", "STUB_MEMORY": 64,
            "STUB_KERNEL": "kernel.elf", "STUB_RAMDISK": "initrd.cpio", "CRASHES": 20,
            "DEATHS": 3, "ATTACHES": 3, "ENDS": "power-off xen",
            "KINDS": "exception page-fault kernel-page-fault double-fault"}
BY_HAND_S = 3600.0
SILENCE_S = 240.0  # dom0/init says "LAB beat" every 30 seconds
MONITOR = "monitor"
QUESTIONS = ("info registers", "info lapic", "info pic")
ANSWER_S = 5.0


class Verdict(NamedTuple):
    """One thing that a scenario has looked at."""

    name: str
    is_ok: bool
    text: str


class Run(NamedTuple):
    """What a machine has said, until it ended or was ended."""

    verdicts: list[Verdict]
    has_ended: bool
    console: str
    took_s: float
    hangs: bool = False  # it said nothing for too long

    def complaint(self) -> str | None:
        """Why the run is not a success; None if it is one."""
        bad = [f"{one.name}: {one.text}" for one in self.verdicts if not one.is_ok]
        if not self.verdicts or not self.has_ended:
            bad.append(f"the scenario has not come to an end; its last verdict was "
                       f"{self.verdicts[-1].name if self.verdicts else 'none'}")
        return "\n".join(bad) or None


def run_scenario(name: str, parameters: Mapping[str, object], timeout_s: float,
                 keep_in: Path | None = None,
                 show: Callable[[bytes], object] | None = None) -> Run:
    """Boot, and run dom0/`name`.sh with `parameters` as shell variables.

    What the console says is given to `show` as it comes, and written to `keep_in` if that is given
    and the run is no success."""
    need_tools(QEMU)
    image = build()
    directory = Path(tempfile.mkdtemp(prefix="xen-lab-"))
    try:
        words, files = split_files(parameters)
        files["lab/parameters"] = "".join(
            f"{key}='{value}'\n"
            for key, value in {"SCENARIO": name, **DEFAULTS, **words}.items()).encode()
        write_initrd(image, directory / "initrd", files)
        memory_mib = int(str(parameters.get("MACHINE_MIB", MEMORY_MIB)))
        run = _boot(command(image, directory, memory_mib), timeout_s, show, directory / MONITOR)
    finally:
        shutil.rmtree(directory)
    if keep_in is not None and run.complaint() is not None:
        keep_in.mkdir(parents=True, exist_ok=True)
        (keep_in / f"{name}.console").write_text(run.console, "utf-8")
    return run


def command(image: Image, directory: Path, memory_mib: int = MEMORY_MIB) -> list[str]:
    """QEMU's command line. The names must have no comma: there QEMU splits modules."""
    initrd = directory / "initrd"
    return [QEMU, "-accel", "tcg,thread=multi", "-cpu", CPU, "-m", str(memory_mib),
            "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(image.xen),
            "-monitor", f"unix:{directory / MONITOR},server=on,wait=off",
            "-append", XEN_OPTIONS, "-initrd", f"{image.kernel} {LINUX_OPTIONS},{initrd}"]


def _boot(words: list[str], timeout_s: float, show: Callable[[bytes], object] | None,
          monitor: Path) -> Run:
    """Run the machine until it powers off, hangs, or time is up."""
    began_s = time.monotonic()
    said, hangs = bytearray(), False
    with subprocess.Popen(words, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as machine:
        assert machine.stdout is not None
        try:
            while (left_s := began_s + timeout_s - time.monotonic()) > 0:
                hangs = not select.select([machine.stdout], [], [], min(left_s, SILENCE_S))[0]
                data = b"" if hangs else os.read(machine.stdout.fileno(), 1 << 16)
                if not data:
                    break
                said += data
                if show is not None:
                    show(data)
                if END.encode() in said[-4096:] and machine.poll() is not None:
                    break
            if hangs:
                said += ask(monitor, *QUESTIONS).encode()
        finally:
            machine.kill()
    console = said.decode("utf-8", "replace")
    return Run(verdicts_of(console), END in console, console, time.monotonic() - began_s, hangs)


def ask(monitor: Path, *questions: str) -> str:
    """What QEMU's monitor answers, as far as it does so within ANSWER_S."""
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        with contextlib.suppress(OSError):
            sock.connect(str(monitor))
            sock.sendall("".join(f"{question}\n" for question in questions).encode())
            while data := sock.recv(1 << 16):
                answer += data
    return answer.decode("utf-8", "replace")


def split_files(parameters: Mapping[str, object]) -> tuple[dict[str, object], dict[str, bytes]]:
    """Of the stub domain's kernel and ramdisk, those that are paths here and not names of
    build/image: what is in them, for dom0's root; and the parameters as scenarios know them."""
    words, files = dict(parameters), {}
    for key in ("STUB_KERNEL", "STUB_RAMDISK"):
        path = Path(str(words.get(key, "")))
        if len(path.parts) > 1:
            words[key] = path.name
            files[f"lab/stub/{path.name}"] = path.read_bytes()
    return words, files


def verdicts_of(console: str) -> list[Verdict]:
    """The verdicts on a console."""
    return [Verdict(name, word == "ok", text)
            for name, word, text in VERDICT.findall(XEN_LINE.sub("", console))]


def main(arguments: list[str]) -> int:
    """Run one scenario by hand: its name, then NAME=VALUE for its parameters."""
    if not arguments:
        print("usage: python -m tests.xen.machine SCENARIO [NAME=VALUE]...", file=sys.stderr)
        return 2
    name, *pairs = arguments
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as terminal:
        run = run_scenario(name, dict(pair.split("=", 1) for pair in pairs), BY_HAND_S,
                           show=terminal.write)
    print(f"{run.took_s:.0f} s; {run.complaint() or 'all is well'}")
    return 1 if run.complaint() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
