# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the real server process under guests on rings, which must notice nothing but delay.

  python -m tests.crash.kill9_rings [--kills 1000] [--guests 3] [--seed N] [--region-size 1M]

Guests are processes of their own on a simulated Xen directory. Each works through a script of
requests (reads, writes, transactions, watches; many under way at once; longer than the ring) of
which every reply and every event is known beforehand, byte for byte: whatever comes else, or
twice, or does not come, or comes without a notification ends the run. Two toolstacks, one on domain
0's own ring, one on the unix socket, make and end domains meanwhile and write into the guests'
inboxes; in the end all that was due must have been heard, once. The server is killed at random
moments, a share of them while it starts. Prints progress and the counts; exit code 1 on a failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from tests.crash.kill9_channel import Channel
from tests.crash.kill9_guest import BIG_NAMES, INBOXES, Guest
from tests.crash.kill9_toolstack import Ledger, RingToolstack, SocketToolstack
from tests.oracle.guest import SimXen, add_guest
from tests.oracle.ours import CHECKOUT, RAM_DIRECTORY, has_room
from tests.oracle.xsclient import SocketConnection

START_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 60.0
START_SHARE = 0.15  # of the kills: somewhere in the start, which takes about START_S
START_S = 0.25
KILL_AFTER_S = (0.001, 0.1)
OWN_DOMIDS = {"a": range(100, 106), "b": range(200, 206)}  # of the toolstacks
BAD_WORDS = ("DAMAGED", "corrupt", "Traceback", "ignored", "dropped", "Error")

Fork = multiprocessing.get_context("fork")


class Victim:
    """The real server: killed, and started again on the same region and the same directory."""

    def __init__(self, directory: Path, region_size: str) -> None:
        self.socket_path = directory / "socket"
        self.log = ""
        self.start_times_s: list[float] = []
        self._command = [sys.executable, "-X", "faulthandler", "-m", "app",
                         "--socket", str(self.socket_path), "--region", str(directory / "region"),
                         "--region-size", region_size,
                         "--host", f"sim:{directory / 'sim'}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start it, and do not wait."""
        self._is_ready = False
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(self._command, cwd=CHECKOUT, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait_ready(self) -> None:
        """Until it has said that it listens."""
        if self._is_ready:
            return
        assert self._process is not None and self._process.stderr is not None
        poll = select.poll()
        poll.register(self._process.stderr, select.POLLIN)
        text = ""
        while "listening on" not in text:
            remaining_s = self._began_s + START_TIMEOUT_S - time.monotonic()
            if remaining_s <= 0 or not poll.poll(remaining_s * 1000):
                self.end(signal.SIGABRT)  # so that it says where it was
                raise AssertionError(f"not ready after {START_TIMEOUT_S:g} s: {text}")
            data = os.read(self._process.stderr.fileno(), 65536)
            if not data:
                raise AssertionError("it ended by itself:\n" + (self.log + text)[-4000:])
            text += data.decode("utf-8", "replace")
        self.start_times_s.append(time.monotonic() - self._began_s)
        self.log += text
        self._is_ready = True

    def end(self, number: int = signal.SIGKILL) -> int:
        """End it with a signal; the exit code. Harmless if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stderr is not None
        process.send_signal(number)
        with process.stderr:
            self.log += process.stderr.read().decode("utf-8", "replace")
        return process.wait()

    def check_log(self) -> None:
        """Nothing was damaged, nobody was ignored, and it died of nothing but us."""
        bad = [line for line in self.log.splitlines() if any(word in line for word in BAD_WORDS)]
        assert not bad, "\n".join(bad[:20])


class Actor:
    """A process that plays a guest or a toolstack. `work` gets its pipe, and a function that
    tells how many answers it has had, and how many messages it is waiting for."""

    def __init__(self, name: str,
                 work: Callable[[Pipe, Callable[[int, int], None]], object]) -> None:
        self.name = name
        self.pipe, self._their_pipe = Fork.Pipe()
        self.cells = Fork.RawArray("Q", 2)
        self._work = work
        self.process = Fork.Process(target=self._act, name=name, daemon=True)
        self.process.start()
        self._their_pipe.close()

    def _tell(self, answered: int, due: int) -> None:
        self.cells[0], self.cells[1] = answered, due

    def _act(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.pipe.close()
        try:
            self._their_pipe.send(("done", self._work(self._their_pipe, self._tell)))
        except BaseException:
            self._their_pipe.send(("failed", traceback.format_exc()))
            raise SystemExit(1) from None

    def result(self, timeout_s: float) -> Any:
        """What its work returned. Raises AssertionError."""
        if not self.pipe.poll(timeout_s):
            raise AssertionError(f"{self.name} has not ended")
        try:
            kind, value = self.pipe.recv()
        except EOFError:
            raise AssertionError(f"{self.name} has died") from None
        if kind != "done":
            raise AssertionError(f"{self.name}:\n{value}")
        return value

    def end(self) -> None:
        """Whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class World:
    """Server, guests and toolstacks."""

    def __init__(self, directory: Path, guests: int, seed: int, region_size: str) -> None:
        self.sim = directory / "sim"
        self.sim.mkdir()
        self.seed = seed
        self.domids = list(range(1, guests + 1))
        self.actors: dict[str, Actor] = {}
        self.server = Victim(directory, region_size)
        self.under_way = 0
        self.counts: Counter[str] = Counter()

    def begin(self) -> None:
        """Start everything. The guests are ready before the toolstacks write to them."""
        self.server.start()
        self.server.wait_ready()
        sim = SimXen(self.sim)
        with SocketConnection(self.server.socket_path) as dom0:
            dom0.write("/secret", "secret")
            dom0.mkdir("/shared")
            dom0.set_perms("/shared", "b0")
            dom0.mkdir("/local/domain/0")
            self._furnish(dom0, 0)
            for domid in self.domids:
                add_guest(sim, dom0, domid)
                self._furnish(dom0, domid)
        sim.close()
        for domid in self.domids:
            self.actors[f"guest {domid}"] = Actor(f"guest {domid}", self._guest(domid))
        for actor in self.actors.values():
            if not actor.pipe.poll(START_TIMEOUT_S) or actor.pipe.recv() != "ready":
                raise AssertionError(f"{actor.name} could not begin")
        self.actors["a"] = Actor("domain 0 on its ring", self._ring_toolstack)
        self.actors["b"] = Actor("domain 0 on the socket", self._socket_toolstack)

    @staticmethod
    def _furnish(dom0: SocketConnection, domid: int) -> None:
        home = f"/local/domain/{domid}"
        for name in [*(f"inbox/{letter}" for letter in INBOXES),
                     *(f"big/{name}" for name in BIG_NAMES)]:
            dom0.mkdir(f"{home}/{name}")

    def _guest(self, domid: int) -> Callable[[Pipe, Callable[[int, int], None]], list[int]]:
        def work(pipe: Pipe, tell: Callable[[int, int], None]) -> list[int]:
            guest = Guest(Channel(self.sim, domid), pipe, tell)
            return guest.main(pipe, self.seed, [0, *self.domids])
        return work

    def _ring_toolstack(self, pipe: Pipe, tell: Callable[[int, int], None]) -> object:
        toolstack = RingToolstack(Channel(self.sim, 0), pipe, tell)
        toolstack.prepare(self.sim, pipe, self.seed, OWN_DOMIDS["a"], self.domids)
        return toolstack.main()

    def _socket_toolstack(self, pipe: Pipe, tell: Callable[[int, int], None]) -> object:
        toolstack = SocketToolstack(self.server.socket_path)
        toolstack.prepare(self.sim, pipe, self.seed, OWN_DOMIDS["b"], self.domids)
        return toolstack.main()

    # -- killing

    def kill(self, chance: random.Random) -> None:
        """One kill, and the next start."""
        if chance.random() < START_SHARE:
            delay_s = chance.uniform(0.0, START_S)
            self.counts["kills in a start"] += 1
        else:
            self.server.wait_ready()
            delay_s = chance.uniform(*KILL_AFTER_S)
        self.watch_actors(delay_s)
        code = self.server.end()
        assert code == -signal.SIGKILL, f"the server ended by itself, with {code}"
        self.under_way += sum(bool(actor.cells[1]) for actor in self.actors.values())
        self.server.start()

    def watch_actors(self, seconds: float) -> None:
        """Let time pass; an actor that says something before its end has failed."""
        ready = multiprocessing.connection.wait(
            [actor.pipe for actor in self.actors.values()], seconds)
        for actor in self.actors.values():
            if actor.pipe in ready:
                actor.result(0)
                raise AssertionError(f"{actor.name} has ended before it was told to")

    def answered(self) -> int:
        """Requests on rings that were answered as predicted."""
        return sum(actor.cells[0] for actor in self.actors.values())

    # -- the end

    def finish(self) -> None:
        """Nobody dies any more: all that is due comes, and nothing else."""
        self.server.wait_ready()
        socket_stack, ring_stack = self.actors["b"], self.actors["a"]
        socket_stack.pipe.send("finish")
        theirs: Ledger = socket_stack.result(FINISH_TIMEOUT_S)
        ring_stack.pipe.send(theirs)
        ours, tx_ids = ring_stack.result(FINISH_TIMEOUT_S)
        guests = [self.actors[f"guest {domid}"] for domid in self.domids]
        for domid, guest in zip(self.domids, guests, strict=True):
            guest.pipe.send({"a": ours.sent[domid], "b": theirs.sent[domid]})
        for guest in guests:
            tx_ids += guest.result(FINISH_TIMEOUT_S)
        assert len(tx_ids) == len(set(tx_ids)), "a transaction id was given out twice"
        with SocketConnection(self.server.socket_path) as dom0:
            assert dom0.control("check") == "OK"
            left = [name for name in dom0.directory("/local/domain")
                    if int(name) not in (0, *self.domids)]
            assert not left and not dom0.directory("/shared"), "dead domains' nodes are still there"
        assert self.server.end(signal.SIGTERM) == 0
        self.server.check_log()
        self.counts.update(ours.counts + theirs.counts)
        self.counts["events of domains"] = sum(
            (ours.introduced + ours.released + theirs.introduced + theirs.released).values())
        self.counts["events in inboxes"] = (ours.sent + theirs.sent).total()
        self.counts["transactions"] = len(tx_ids)

    def end(self) -> None:
        """End all processes."""
        for actor in self.actors.values():
            actor.end()
        self.server.end()


def run(kills: int, guests: int, seed: int, region_size: str,
        progress: bool) -> tuple[int, int, Counter[str]]:
    """Kill `kills` times; returns how many requests on rings were answered, how many clients had
    some under way at a kill, and what else was counted. Raises AssertionError."""
    chance = random.Random(seed)
    base = RAM_DIRECTORY if has_room(RAM_DIRECTORY) else None
    with tempfile.TemporaryDirectory(prefix="kill9-", dir=base) as directory:
        world = World(Path(directory), guests, seed, region_size)
        try:
            world.begin()
            for kill in range(kills):
                world.kill(chance)
                if progress and (kill % 20 == 19 or kills <= 20):
                    print(f"killed {kill + 1} times: {world.answered()} requests answered as "
                          f"predicted; {world.under_way} clients had some under way at a kill",
                          flush=True)
            world.finish()
            starts = sorted(world.server.start_times_s)
            world.counts["ms of a start, median"] = int(starts[len(starts) // 2] * 1000)
            return world.answered(), world.under_way, world.counts
        except AssertionError as error:
            raise AssertionError(
                f"{error}\nthe server's log ends:\n{world.server.log[-3000:]}\nagain: python -m "
                f"tests.crash.kill9_rings --kills {kills} --guests {guests} --seed {seed} "
                f"--region-size {region_size}") from error
        finally:
            world.end()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--region-size", default="1M")
    options = parser.parse_args()
    try:
        answered, under_way, counts = run(options.kills, options.guests, options.seed,
                                          options.region_size, progress=True)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.kills} kills, {answered} requests answered exactly once, {under_way} clients "
          "had some under way at a kill; "
          + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
