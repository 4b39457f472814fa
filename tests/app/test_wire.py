# SPDX-License-Identifier: Apache-2.0
"""Framing: however a stream of bytes is cut, the same requests come out, in order, and nothing
behind a length over 4096 is ever believed. Method: golden bytes, every cut of a stream, random
streams cut at random.

Source: protocol reference 1.1, 1.2, 1.6; Xen's io/xs_wire.h. What the server does with a broken
stream is its connections' business, not shown here."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import wire
from app.wire import FrameError, Request

NUMBERS = {
    "CONTROL": 0, "DIRECTORY": 1, "READ": 2, "GET_PERMS": 3, "WATCH": 4, "UNWATCH": 5,
    "TRANSACTION_START": 6, "TRANSACTION_END": 7, "INTRODUCE": 8, "RELEASE": 9,
    "GET_DOMAIN_PATH": 10, "WRITE": 11, "MKDIR": 12, "RM": 13, "SET_PERMS": 14,
    "WATCH_EVENT": 15, "ERROR": 16, "IS_DOMAIN_INTRODUCED": 17, "RESUME": 18, "SET_TARGET": 19,
    "RESET_WATCHES": 21, "DIRECTORY_PART": 22, "GET_FEATURE": 23, "SET_FEATURE": 24,
    "GET_QUOTA": 25, "SET_QUOTA": 26,
}
WORD = st.integers(0, 0xFFFFFFFF)
REQUESTS = st.lists(st.builds(Request, WORD, WORD, WORD, st.binary(max_size=80)), max_size=8)


def pack(request: Request) -> bytes:
    """A request as a client sends it, made without the server's help."""
    return struct.pack("<IIII", *request[:3], len(request.payload)) + request.payload


def take_all(data: bytes) -> tuple[list[Request], bytes]:
    """All complete requests of `data`, and what is left."""
    found, offset = [], 0
    while (taken := wire.take(data, offset)) is not None:
        request, offset = taken
        found.append(request)
    return found, data[offset:]


def test_the_numbers_are_those_of_the_protocol() -> None:
    assert {name: value for value, name in wire.TYPE_NAMES.items()} == NUMBERS
    assert wire.PAYLOAD_MAX == 4096 and wire.HEADER_SIZE == 16


def test_golden_bytes() -> None:
    data = bytes.fromhex("02000000 05000000 07000000 03000000") + b"/a\0"
    assert wire.take(data, 0) == (Request(2, 5, 7, b"/a\0"), 19)
    request = Request(2, 5, 7, b"/a\0")
    assert wire.reply(request, b"hi") == (
        bytes.fromhex("02000000 05000000 07000000 02000000") + b"hi")
    assert wire.error(request, b"ENOENT") == (
        bytes.fromhex("10000000 05000000 07000000 07000000") + b"ENOENT\0")
    assert wire.event(b"/a", b"tok") == (
        bytes.fromhex("0f000000 00000000 00000000 07000000") + b"/a\0tok\0")


@given(REQUESTS)
def test_any_stream_gives_its_requests(requests: list[Request]) -> None:
    assert take_all(b"".join(map(pack, requests))) == (requests, b"")


@given(REQUESTS, st.data())
def test_the_cuts_do_not_matter(requests: list[Request], data: st.DataObject) -> None:
    stream = b"".join(map(pack, requests))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    found: list[Request] = []
    pending = b""
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        taken, pending = take_all(pending + stream[begin:end])
        found += taken
    assert (found, pending) == (requests, b"")


def test_every_prefix_is_incomplete() -> None:
    whole = pack(Request(11, 1, 2, bytes(range(40))))
    for size in range(len(whole)):
        assert wire.take(whole[:size], 0) is None
        assert wire.take(b"other" + whole[:size], 5) is None
    assert wire.take(whole, 0) is not None


@pytest.mark.parametrize("length", [0, 1, 4095, 4096])
def test_legal_lengths(length: int) -> None:
    request = Request(0, 0, 0, bytes(length))
    assert wire.take(pack(request), 0) == (request, 16 + length)


# XSA-38 and 420: what is said of a size is not believed, least of all 1 to 4 GiB
@pytest.mark.parametrize("length", [4097, 5000, 1 << 16, 1 << 30, (1 << 31) - 1, 1 << 31,
                                    (1 << 31) + 16, 0xFFFFFFF0, 0xFFFFFFFF])
@pytest.mark.parametrize("behind", [0, 1, 8192])
def test_a_length_over_4096_ends_the_stream(length: int, behind: int) -> None:
    data = struct.pack("<IIII", 2, 1, 0, length) + bytes(behind)
    with pytest.raises(FrameError):
        wire.take(data, 0)
    good = Request(2, 1, 0, b"/\0")
    assert wire.take(pack(good) + data, 0) == (good, 18)  # what came before it is served
    with pytest.raises(FrameError):
        wire.take(pack(good) + data, 18)


@pytest.mark.parametrize("size, is_error", [(0, False), (4096, False), (4097, True),
                                            (1 << 20, True)])
def test_no_reply_exceeds_a_message(size: int, is_error: bool) -> None:
    """XSA-72."""
    request = Request(1, 9, 0, b"/\0")
    packet = wire.reply(request, bytes(size))
    assert len(packet) <= 16 + 4096
    assert packet == (wire.error(request, b"E2BIG") if is_error else pack(
        Request(1, 9, 0, bytes(size))))


@pytest.mark.parametrize("path_size, token_size", [(1, 4093), (4094, 0), (2000, 2094)])
def test_no_event_exceeds_a_message(path_size: int, token_size: int) -> None:
    """XSA-324: path and token with their NULs fill a message exactly; one more is no event."""
    path, token = b"/" * path_size, b"t" * token_size
    packet = wire.event(path, token)
    assert packet is not None and len(packet) == 16 + 4096
    assert wire.event(path + b"x", token) is None
    assert wire.event(path, token + b"x") is None
