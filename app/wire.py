# SPDX-License-Identifier: Apache-2.0
"""struct xsd_sockmsg: bytes in, requests out; replies and events to bytes. No sockets, no rings.

W1. A message is at most 16 + 4096 bytes; a longer one in a request ends its connection.
W2. A reply repeats type, req_id and tx_id of its request; an event has req_id 0 and tx_id 0.
Source: Xen's public header io/xs_wire.h. Knows nothing of what the messages mean."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

PAYLOAD_MAX = 4096
HEADER = Struct("<IIII")  # type, req_id, tx_id, len
HEADER_SIZE = HEADER.size

XS_CONTROL = 0
XS_DIRECTORY = 1
XS_READ = 2
XS_GET_PERMS = 3
XS_WATCH = 4
XS_UNWATCH = 5
XS_TRANSACTION_START = 6
XS_TRANSACTION_END = 7
XS_INTRODUCE = 8
XS_RELEASE = 9
XS_GET_DOMAIN_PATH = 10
XS_WRITE = 11
XS_MKDIR = 12
XS_RM = 13
XS_SET_PERMS = 14
XS_WATCH_EVENT = 15
XS_ERROR = 16
XS_IS_DOMAIN_INTRODUCED = 17
XS_RESUME = 18
XS_SET_TARGET = 19
XS_RESET_WATCHES = 21
XS_DIRECTORY_PART = 22
XS_GET_FEATURE = 23
XS_SET_FEATURE = 24
XS_GET_QUOTA = 25
XS_SET_QUOTA = 26

TYPE_NAMES = {value: name[3:] for name, value in list(globals().items())
              if name.startswith("XS_")}

OK = b"OK\0"
_unpack = HEADER.unpack_from
_pack = HEADER.pack
_new = tuple.__new__  # half the cost of a NamedTuple's own


class Request(NamedTuple):
    """One complete request."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


class FrameError(Exception):
    """The length field is larger than a payload may be: the stream cannot be read on."""


def take(data: bytes, offset: int) -> tuple[Request, int] | None:
    """The request at `offset` and the offset behind it; None if it is not complete yet.

    Raises FrameError."""
    body = offset + HEADER_SIZE
    if len(data) < body:
        return None
    kind, req_id, tx_id, length = _unpack(data, offset)
    if length > PAYLOAD_MAX:
        raise FrameError(f"length {length} of a message, at most {PAYLOAD_MAX}")
    end = body + length
    if len(data) < end:
        return None
    return _new(Request, (kind, req_id, tx_id, data[body:end])), end


def reply(request: Request, payload: bytes) -> bytes:
    """The reply packet; a payload that no message can hold becomes E2BIG."""
    if len(payload) > PAYLOAD_MAX:
        return error(request, b"E2BIG")
    return _pack(request[0], request[1], request[2], len(payload)) + payload


def error(request: Request, name: bytes) -> bytes:
    """The ERROR packet that answers `request`."""
    return _pack(XS_ERROR, request.req_id, request.tx_id, len(name) + 1) + name + b"\0"


def event(path: bytes, token: bytes) -> bytes | None:
    """The WATCH_EVENT packet; None if path and token together are too long to be sent."""
    length = len(path) + len(token) + 2
    if length > PAYLOAD_MAX:
        return None
    return _pack(XS_WATCH_EVENT, 0, 0, length) + path + b"\0" + token + b"\0"
