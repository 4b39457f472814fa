# SPDX-License-Identifier: Apache-2.0
"""Figures of the image in QEMU, and of the daemon on the same machine, in one run.

  python -m tests.qemu.measure [--nodes 1000] [--crashes 20] [--boots 5] [--prototype DIR]

Power-on is the spawn of QEMU, as this host's kernel has it (good to 10 ms). A crash begins when
the client has its answer to CONTROL crash, and ends with its first reply on a new connection: it
connects and reads in a tight loop. Each life has served for a while: quick deaths are slowed down.
Everything is emulated: only ratios within one run mean something elsewhere.
Exit code 1 if serving takes 1.0 s or longer, or a crash 0.3 s or longer, at best.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.oracle.ours import OurServer
from tests.oracle.xsclient import ConnectionClosed, MessageType, NoReply, SocketConnection, strings
from tests.qemu.machine import CRASH_S, IMAGE, Machine, build

SERVING_S, CRASH_TO_REPLY_S = 1.0, 0.3
ROUND_TRIPS, PIPELINED, BATCHES = 1000, 32, 60
NO_QUICK_DEATH_S = 0.2  # twice what crash.c calls quick
LEAVE_S = 0.005  # between two looks at the console
PROTOTYPE_S = 20.0
MOMENTS = (("kernel's first line", r"^\[kernel\] "), ("Python begins", r"^\[kernel\] start 0: "),
           ("Python's first line", r"^tardigrade: "))


def boots(count: int) -> float:
    """Power-on to what is said and served; the best time to the first reply."""
    replies_s: list[float] = []
    moments_s: dict[str, list[float]] = {name: [] for name, _ in MOMENTS}
    for _ in range(count):
        machine = Machine(kernel=("log=debug",), arguments=())
        try:
            machine.spawn()
            began_s = machine.qemu_began_s()
            for name, pattern in MOMENTS:
                while re.search(pattern, machine.console(), re.M) is None:
                    time.sleep(LEAVE_S)
                moments_s[name].append(time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)
            replies_s.append(machine.wait_served())
            own = re.search(r"snapshot taken at (\d+) ms; (\d+) KiB are free", machine.console())
        finally:
            machine.discard()
    for name, times_s in moments_s.items():
        tell(f"power-on to {name}", times_s)
    tell("power-on to first reply", replies_s)
    if own is not None:
        print(f"  by the kernel's own clock the snapshot was taken at {own[1]} ms; "
              f"{own[2]} KiB are free then")
    return min(replies_s)


def crash(machine: Machine, kind: str) -> float:
    """Seconds from a crash, as its client sees it, to the first reply."""
    with machine.connect() as client:
        served_s = time.monotonic() + NO_QUICK_DEATH_S
        while time.monotonic() < served_s:
            client.read("/m/0")
        client.call(MessageType.CONTROL, strings("crash", kind), timeout_s=CRASH_S)
        began_s = time.monotonic()
        while True:  # the life that dies may still serve somebody for a moment
            try:
                client.receive(CRASH_S)
            except ConnectionClosed:
                break
        while True:
            try:
                with machine.connect() as again:
                    again.request(MessageType.READ, b"/m/0\0", timeout_s=CRASH_S)
                    return time.monotonic() - began_s
            except (OSError, ConnectionClosed, NoReply):
                pass


def fill(client: SocketConnection, nodes: int) -> None:
    """That many nodes."""
    for number in range(nodes):
        client.write(f"/m/{number}", "v" * 40)


def crashes(nodes: int, count: int) -> float:
    """Crash to first reply, from the snapshot and cold; the best of the former."""
    best_s = 0.0
    for words, what in (((), "from the snapshot"), (("snapshot=off",), "cold")):
        with Machine(kernel=("drill=on", *words)) as machine:
            with machine.connect() as client:
                fill(client, nodes)
            for kind in ("exception", "kernel-page-fault"):
                times_s = [crash(machine, kind) for _ in range(count if not words else count // 4)]
                tell(f"crash ({kind}) to first reply, {nodes} nodes, {what}", times_s)
                best_s = best_s or min(times_s)
            lives = re.findall(r"in ([0-9.]+) ms; this is life", machine.console())
            print(f"  of that the server's own recovery: median "
                  f"{statistics.median(map(float, lives)):.1f} ms")
            print("  " + machine.control("memreport").replace("\n", "; "))
    return best_s


def requests(connect: Callable[[], SocketConnection]) -> tuple[float, float]:
    """Seconds of one round trip (the median), and requests per second if many are under way."""
    with connect() as client:
        client.write("/m/x", "v" * 40)
        times_s = []
        for _ in range(ROUND_TRIPS):
            began_s = time.perf_counter()
            client.read("/m/x")
            times_s.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        for _ in range(BATCHES):
            sent = [client.send(MessageType.READ, b"/m/x\0") for _ in range(PIPELINED)]
            for req_id in sent:
                client.receive_reply(req_id, CRASH_S)
        rate = BATCHES * PIPELINED / (time.perf_counter() - began_s)
    return statistics.median(times_s), rate


def compare() -> None:
    """Requests, of the image and of the daemon."""
    with Machine() as machine, OurServer() as daemon:
        image_s, image_rate = requests(machine.connect)
        daemon_s, daemon_rate = requests(lambda: SocketConnection(daemon.socket_path))
        machine_kib = resident_kib(machine.find_qemu())
    print(f"round trip of a READ: image {image_s * 1e6:.0f} us, daemon {daemon_s * 1e6:.0f} us: "
          f"{image_s / daemon_s:.1f} times as long")
    print(f"READs, {PIPELINED} under way: image {image_rate:.0f}/s, daemon {daemon_rate:.0f}/s: "
          f"1/{daemon_rate / image_rate:.1f} as many")
    print(f"QEMU with a machine of 64 MiB: {machine_kib >> 10} MiB resident")


def resident_kib(pid: int) -> int:
    """What a process has in memory."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def prototype(directory: Path, count: int) -> None:
    """Boot another kernel and initrd the same way; the moments at which it says what it says."""
    files = [next(iter(sorted(directory.glob(pattern))), None) for pattern in
             ("kernel*", "initrd*")]
    if None in files:
        print(f"{directory}: no kernel* and initrd* there", file=sys.stderr)
        return
    firsts_s: list[float] = []
    pythons_s: list[float] = []
    for _ in range(count):
        began_s = time.monotonic()
        with subprocess.Popen(
                ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                 "-no-reboot", "-machine", "microvm,acpi=off,isa-serial=on,rtc=on,pit=on",
                 "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "128M", "-serial", "stdio",
                 "-kernel", str(files[0]), "-initrd", str(files[1])],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL) as qemu:
            assert qemu.stdout is not None
            try:
                os.set_blocking(qemu.stdout.fileno(), False)
                said = b""
                while time.monotonic() < began_s + PROTOTYPE_S and b"Python" not in said:
                    data = qemu.stdout.read()
                    if data == b"":
                        break
                    if data:
                        if not said:
                            firsts_s.append(time.monotonic() - began_s)
                        said += data
                    time.sleep(LEAVE_S)
                if b"Python" in said:
                    pythons_s.append(time.monotonic() - began_s)
            finally:
                qemu.kill()
    tell("prototype: power-on to first line", firsts_s)
    tell("prototype: power-on to a line with Python", pythons_s)


def tell(what: str, times_s: list[float]) -> None:
    """A line of figures."""
    if times_s:
        print(f"{what}: best {min(times_s):.3f}, median {statistics.median(times_s):.3f}, max "
              f"{max(times_s):.3f} s ({len(times_s)} times)", flush=True)
    else:
        print(f"{what}: never", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--crashes", type=int, default=20)
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--prototype", type=Path, metavar="DIR",
                        help="another kernel* and initrd*, booted in the same run")
    options = parser.parse_args()
    build()
    print("image: " + ", ".join(f"{name} {(IMAGE / name).stat().st_size >> 10} KiB"
                                for name in ("kernel.elf", "initrd.cpio")))
    serving_s = boots(options.boots)
    if options.prototype is not None:
        prototype(options.prototype, options.boots)
    crash_s = crashes(options.nodes, options.crashes)
    compare()
    is_good = serving_s < SERVING_S and crash_s < CRASH_TO_REPLY_S
    print(f"accepted: {'yes' if is_good else 'NO'} (serving {serving_s:.2f} of {SERVING_S:g} s, "
          f"crash to first reply {crash_s:.2f} of {CRASH_TO_REPLY_S:g} s, at best)")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
