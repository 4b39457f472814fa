# SPDX-License-Identifier: Apache-2.0
"""From the daemon to a domain that xl has made, and back: the state goes along as the region.

H1. Until the domain has answered, the daemon's region file is the truth, and nobody has changed it:
    whatever fails before, the daemon is started again on it, and the domain is destroyed.
H2. The daemon has ended, and given its lock back, before its region is read: nothing comes behind.
H3. The domain has not run when its region is filled.
The daemon leaves dom0's own ring alone (--host linux:guests): once dom0's kernel has spoken to a
xenstore, it takes no other (dom0.set_up).
Knows nothing of xl but how to have a domain made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import time
from typing import NamedTuple

from tools.boot import consoles, dom0, evtchn, frames, process, region
from tools.boot.failure import BootError
from tools.boot.libxen import Xen
from tools.boot.place import Place, place_of_image
from tools.boot.process import Daemon
from tools.boot.rescue import ANSWER_S, Tell

XL_S = 120.0
END_S = 10.0
WAIT_S = 0.02
KERNEL_FINDS = "--event find"  # the command line is fixed before there is a port
WORDS = re.compile(r"""^\s*(?:cmdline|extra)\s*=\s*(["'])(.*)\1\s*$""", re.M)
KERNEL = re.compile(r"""^\s*kernel\s*=\s*(["'])(.*)\1\s*$""", re.M)
NAME = re.compile(r"""^\s*name\s*=\s*(["'])(.*)\1\s*$""", re.M)


class Server(NamedTuple):
    """The daemon that is to be replaced."""

    pid: int
    daemon: Daemon
    socket: str
    region: str


class Config(NamedTuple):
    """What matters in a configuration for xl."""

    path: str
    name: str
    place: Place


def server_of(pid: int, socket: str, region_file: str) -> Server:
    """Raises BootError if there is no such process."""
    daemon = process.describe(pid)
    if daemon is None:
        raise BootError(f"there is no process {pid}")
    return Server(pid, daemon, socket, region_file)


def read_config(path: str) -> Config:
    """Raises BootError if it does not do."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
    words, name, kernel = WORDS.search(text), NAME.search(text), KERNEL.search(text)
    if name is None:
        raise BootError(f'{path}: there is no name = "..."')
    if words is None or KERNEL_FINDS not in words[2]:
        raise BootError(f'{path}: expected cmdline = "{KERNEL_FINDS} ..."')
    known = kernel[2] if kernel is not None and os.path.exists(kernel[2]) else None
    return Config(path, name[2], place_of_image(known, words[2]))


def hand_over(xen: Xen, config: Config, server: Server, tell: Tell) -> int:
    """The domid of the domain that serves from now on. Raises BootError; the daemon serves then, as
    before."""
    size = os.path.getsize(server.region) if os.path.exists(server.region) else 0
    if size != config.place.size:
        raise BootError(f"{server.region} has {size} bytes and the domain's region is "
                        f"{config.place}: start the daemon with --region-size, or the kernel with "
                        "region=")
    domid = make_domain(config, server)
    tell(f"domain {domid} is made, and stands still")
    began_s = time.monotonic()
    ended = consoles.end_all(tell)  # they have the daemon's socket
    try:
        stop(server)
        region.put(domid, config.place, region.load(server.region), frames.of_new(xen, domid))
        port = dom0.set_up(domid)
        tell(f"domain {domid} has the region; dom0's ring is offered to it at port {port}")
        xen.tell_of_deaths(domid)
        xen.unpause(domid)
        wait_until_served(xen, domid, port)
    except BootError:
        go_back(xen, domid, server, ended, tell)
        raise
    tell(f"domain {domid} serves: {1000 * (time.monotonic() - began_s):.0f} ms without a xenstore")
    finish(domid, ended, tell)
    return domid


def wait_until_served(xen: Xen, domid: int, port: int) -> None:
    """Until the domain has bound dom0's port, and answers. Nothing is asked before: a request that
    stays without an answer would have SETUP wait for ever the next time. Raises BootError."""
    end_s = time.monotonic() + ANSWER_S
    while not xen.is_connected(port):
        if xen.has_ended(domid):
            raise BootError(f"domain {domid} has ended before it has served; xl dmesg says why, "
                            "with Xen's guest_loglvl=all")
        if time.monotonic() > end_s:
            raise BootError(f"domain {domid} does not serve")
        time.sleep(WAIT_S)
    dom0.wait_for_answer(ANSWER_S, lambda: xen.has_ended(domid))


def make_domain(config: Config, server: Server) -> int:
    """Have xl make it, paused. Raises BootError."""
    _xl(server, "create", "-p", "-e", config.path)
    answer = _xl(server, "domid", config.name).strip()
    if not answer.isdecimal():
        raise BootError(f"xl domid {config.name}: {answer}")
    return int(answer)


def _xl(server: Server, *words: str) -> str:
    """One xl, on the daemon's socket."""
    try:
        done = subprocess.run(["xl", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=XL_S, errors="replace",
                              env={**os.environ, "XENSTORED_PATH": server.socket})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BootError(f"xl {words[0]}: {error}") from error
    if done.returncode:
        raise BootError(f"xl {' '.join(words)}: {done.stdout.strip()}")
    return done.stdout


def stop(server: Server) -> None:
    """H2. Raises BootError if it does not end."""
    with contextlib.suppress(OSError):
        os.kill(server.pid, 15)
    end_s = time.monotonic() + END_S
    while not _is_free(server.region):
        if time.monotonic() > end_s:
            raise BootError(f"the daemon (process {server.pid}) does not give up {server.region}")
        time.sleep(WAIT_S)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(server.socket)  # libxenstore would take it for the server's


def _is_free(path: str) -> bool:
    """Whether no server holds the region. Raises BootError."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
    return True


def go_back(xen: Xen, domid: int, server: Server, ended: list[Daemon], tell: Tell) -> None:
    """H1. Raises BootError if the daemon cannot be started."""
    with contextlib.suppress(BootError):
        xen.pause(domid)  # it goes when xl can clear its nodes as well
    if _is_free(server.region):
        process.start(server.daemon)
        tell("the daemon is started again, on its region")
        end_s = time.monotonic() + END_S
        while not os.path.exists(server.socket) and time.monotonic() < end_s:
            time.sleep(WAIT_S)
    for daemon in ended:
        consoles.start(daemon, tell)
    try:
        _xl(server, "destroy", str(domid))
    except BootError as error:
        tell(f"domain {domid} is destroyed without xl: {error}")
        xen.destroy(domid)


def finish(domid: int, ended: list[Daemon], tell: Tell) -> None:
    """What others have to know. Failures are told; the domain serves."""
    for daemon in ended:
        consoles.start(daemon._replace(environment={
            **daemon.environment, b"XENSTORED_PATH": os.fsencode(dom0.FRONTEND)}), tell)
    try:
        dom0.write(dom0.DOMID_PATH, str(domid), ANSWER_S)
    except BootError as error:
        tell(f"{dom0.DOMID_PATH} is not written: {error}")


def take_back(xen: Xen, domid: int, place: Place, path: str) -> int:
    """Stop a domain, have its region in a file, destroy it, and have dom0's ring free for a daemon.
    Bytes of the region. Raises BootError; unless the file is there, the domain runs on then. From
    now on there is no xenstore until a daemon is started."""
    if os.path.exists(path) and not _is_free(path):
        raise BootError(f"{path}: a server uses it")
    xen.pause(domid)
    try:
        data = region.take(domid, place, frames.of_domid(domid, place))
        region.save(path, data)
    except BootError:
        xen.unpause(domid)
        raise
    xen.destroy(domid)
    evtchn.take(xen, dom0.port_of_ring())
    return len(data)
