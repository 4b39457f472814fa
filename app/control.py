# SPDX-License-Identifier: Apache-2.0
"""CONTROL: what an operator asks of the running server (xenstore-control).

Unknown commands are EINVAL: xenstore-control then prints the help. Source: Xen's
docs/misc/xenstore.txt and C xenstored's own help. Files and consoles are the Services' business."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from app.errors import Einval, Enoent
from app.quota import DEFAULTS, MEANINGS
from app.wire import OK, PAYLOAD_MAX

if TYPE_CHECKING:
    from app.store import Store

SOFT = "soft-"
CRASH = "crash"  # unknown unless drills are allowed


class Services(Protocol):
    """What commands need of the world outside the core. May raise Einval."""

    def log_requests(self, on: bool) -> None:
        """Begin or end writing every request to the log."""

    def log_to(self, path: str) -> None:
        """Write the log to a file from now on."""

    def write_file(self, path: str, text: str) -> None:
        """Write a report."""

    def warn(self, text: str) -> None:
        """Write a line that a client does what it should not."""

    def say(self, text: str) -> None:
        """Write a line to the log."""

    def report(self) -> str:
        """What the process knows of its own memory and region."""

    def drills(self) -> list[str]:
        """The kinds of crash that can be had on purpose; none unless the operator allows them."""

    def order_drill(self, words: list[str]) -> None:
        """Have a crash: its kind, its arguments, and perhaps "now"."""


def run(store: Store, words: list[bytes]) -> bytes:
    """Run a command; returns the reply's payload. Raises XsError."""
    texts = [word.decode("latin-1") for word in words]
    command = COMMANDS.get(texts[0])
    if texts[0] == CRASH and store.services.drills():
        command = _crash
    if command is None:
        raise Einval
    return command(store, texts[1:])


def _check(store: Store, words: list[str]) -> bytes:
    _expect(words, 0)
    problem = store.check()
    return OK if problem is None else _text(problem)


def _help(store: Store, words: list[str]) -> bytes:
    _expect(words, 0)
    return _text("check\t\nlog\ton|off\nlogfile\t<file>\nmemreport\t[<file>]\nprint\t<string>\n"
                 "quota\t[set <name> <val>|<domid>]\nquota-soft\t[set <name> <val>]\nhelp\t\n"
                 + ("crash\t[<kind> [now]]\n" if store.services.drills() else ""))


def _crash(store: Store, words: list[str]) -> bytes:
    if not words:
        return _text("".join(f"{kind}\n" for kind in store.services.drills()))
    store.services.order_drill(words)
    return OK


def _log(store: Store, words: list[str]) -> bytes:
    _expect(words, 1)
    if words[0] not in ("on", "off"):
        raise Einval
    store.services.log_requests(words[0] == "on")
    return OK


def _logfile(store: Store, words: list[str]) -> bytes:
    _expect(words, 1)
    store.services.log_to(words[0])
    return OK


def _memreport(store: Store, words: list[str]) -> bytes:
    text = store.report() + store.services.report()
    if not words:
        return _text(text)
    _expect(words, 1)
    store.services.write_file(words[0], text)
    return OK


def _print(store: Store, words: list[str]) -> bytes:
    _expect(words, 1)
    store.services.say(words[0])
    return OK


def _quota(store: Store, words: list[str]) -> bytes:
    if len(words) == 1:
        return _usage(store, words[0])
    return _settings(store, words, soft=False)


def _quota_soft(store: Store, words: list[str]) -> bytes:
    return _settings(store, words, soft=True)


def _settings(store: Store, words: list[str], soft: bool) -> bytes:
    if not words:
        names = [name for name in DEFAULTS if name.startswith(SOFT) == soft]
        return _text("Quota settings:\n" + "".join(
            f"{name.removeprefix(SOFT):17}: {store.quotas.value(name):8} {MEANINGS[name]}\n"
            for name in names))
    _expect(words, 3)
    verb, name, value = words
    name = SOFT + name if soft else name
    if verb != "set" or name not in DEFAULTS or name.startswith(SOFT) != soft:
        raise Einval
    limit = _number(value)
    if not 1 <= limit <= 0xFFFFFFFF:
        raise Einval
    store.quotas.put(name, limit)
    return OK


def _usage(store: Store, word: str) -> bytes:
    domid = _number(word)
    if not store.is_domain(domid):
        raise Enoent
    return _text(f"Domain {domid}:\n" + "".join(
        f"{name:16}: {value:8}\n" for name, value in store.usage(domid).items()))


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise Einval
    return int(word)


def _text(text: str) -> bytes:
    return text.encode("latin-1", "replace")[:PAYLOAD_MAX - 1] + b"\0"


def _expect(words: list[str], count: int) -> None:
    if len(words) != count:
        raise Einval


COMMANDS: dict[str, Callable[[Store, list[str]], bytes]] = {
    "check": _check, "help": _help, "log": _log, "logfile": _logfile, "memreport": _memreport,
    "print": _print, "quota": _quota, "quota-soft": _quota_soft,
}
