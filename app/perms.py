# SPDX-License-Identifier: Apache-2.0
"""Permission lists and the one decision who may do what.

M1. Entry 0 names the owner, who may do everything whatever its letter; its letter is what anyone
    not named by a later entry may do. Among the others the first match wins.
M2. DOMID_ANY matches every domain.
M3. Lists are interned by their wire form: nodes with equal permissions share one object.
M4. An entry for a domain that did not exist when it was set grants nothing, ever, also not to a
    later domain with that number (XSA-322, XSA-417): it is kept with an upper-case letter, and
    shown with its own.
Knows nothing of nodes. Source: Xen's docs/misc/xenstore.txt, section Permissions."""

from __future__ import annotations

from array import array
from functools import lru_cache

from app.errors import Einval

DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0
DOMID_ANY = 0x7FF5
DOMID_MAX = 0xFFFF


NONE, READ, WRITE, BOTH = range(4)  # what an entry grants, or a request wants: bits
_ACCESS = {b"n": NONE, b"r": READ, b"w": WRITE, b"b": BOTH}
_IGNORED = {letter.upper(): access for letter, access in _ACCESS.items()}


class Perms:
    """An immutable permission list. Equal lists are the same object (make them by from_wire)."""

    __slots__ = ("_accesses", "_domids", "count", "default", "granted", "owner", "wire")

    def __init__(self, wire: bytes, entries: list[tuple[int, int]], count: int) -> None:
        """`entries` without those that are ignored (M4), of `count` in all."""
        self.wire = wire  # b"n0\0r5\0"
        self.owner, self.default = entries[0]
        self.count = count
        # Compact: admission counts a list by its wire form.
        self._domids = array("H", [domid for domid, _ in entries[1:]])
        self._accesses = bytes([access for _, access in entries[1:]])
        # Domains that would leave a right behind when they die.
        self.granted = tuple({domid for domid in self._domids
                              if 0 < domid < DOMID_FIRST_RESERVED})

    @property
    def shown(self) -> bytes:
        """As GET_PERMS answers."""
        return self.wire.lower()

    def allows(self, domid: int, target: int, want: int) -> bool:
        """Whether `domid`, acting also for `target` (-1: for none), has all of `want`."""
        if self.owner == domid or self.owner == target:
            return True
        for named, access in zip(self._domids, self._accesses, strict=True):
            if named in (domid, target, DOMID_ANY):
                return access & want == want
        return self.default & want == want

    def with_owner(self, domid: int) -> Perms:
        """The same list, owned by `domid`."""
        letter, rest = self.wire[:1], self.wire[self.wire.index(b"\0"):]
        return from_wire(b"%b%d%b" % (letter, domid, rest))

    def ignoring(self, domids: set[int]) -> Perms:
        """The same list, in which the entries for `domids` grant nothing (M4)."""
        if not domids:
            return self
        texts = self.wire.split(b"\0")[:-1]
        texts[1:] = [text.upper() if int(text[1:]) in domids else text for text in texts[1:]]
        return from_wire(b"\0".join(texts) + b"\0")

    def without(self, domid: int) -> Perms:
        """The same list without the entries that grant something to `domid`; it stays owner."""
        kept = self.wire.split(b"\0")[:-1]
        kept[1:] = [text for text in kept[1:] if int(text[1:]) != domid]
        return from_wire(b"\0".join(kept) + b"\0")


@lru_cache(maxsize=1024)
def from_wire(wire: bytes) -> Perms:
    """Parse b"n0\\0r5\\0" as it is stored, ignored entries in upper case. Raises Einval for an
    empty list, unknown letters or bad domids."""
    if not wire.endswith(b"\0"):
        raise Einval
    entries: list[tuple[int, int]] = []
    canonical: list[bytes] = []
    for text in wire[:-1].split(b"\0"):
        letter, digits = text[:1], text[1:]
        access = _ACCESS.get(letter)
        if (access is None and (letter not in _IGNORED or not canonical)) or (
                not digits.isdigit() or int(digits) > DOMID_MAX):
            raise Einval
        if access is not None:
            entries.append((int(digits), access))
        canonical.append(b"%b%d\0" % (letter, int(digits)))
    joined = b"".join(canonical)
    if joined != wire:
        return from_wire(joined)
    return Perms(wire, entries, len(canonical))


def parse(wire: bytes) -> Perms:
    """A list as a client sends it. Raises Einval."""
    perms = from_wire(wire)
    if wire != wire.lower():
        raise Einval
    return perms
