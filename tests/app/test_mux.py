# SPDX-License-Identifier: Apache-2.0
"""M1, M2: only whole and right frames are delivered, whatever the stream suffers, and a session is
found again behind anything.

Method: streams of frames that look as much alike as they can (zeros, frames within payloads), cut
at every byte, with every bit flipped, with garbage in front; as the host reads them, and as the
server does. Cannot show: what is done with the frames (test_lines.py)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from app import mux
from app.mux import (
    CLOSE,
    CREDIT,
    DATA,
    DATA_MAX,
    END,
    FRAME_MAX,
    HELLO,
    OPEN,
    PRELUDE,
    RESET,
    WELCOME,
    ChannelError,
    Decoder,
    Frame,
    frame,
)

OLD, NEW = b"the last session", b"the session now."
CREDIT_ONE = mux.NUMBER.pack(1)

# What a client may have written: frames, and as many zeros before them as fit.
FORGED = [frame(DATA, 2, b"forged"), frame(HELLO, 0, OLD), frame(RESET), frame(WELCOME, 0, OLD)]
FORGERY = [bytes(DATA_MAX - len(one)) + one for one in FORGED] + FORGED
FROM_SERVER = [Frame(CREDIT, 1, CREDIT_ONE), Frame(DATA, 1, b"x" * 20), Frame(DATA, 2, bytes(70)),
               Frame(CLOSE, 0, b""), Frame(DATA, 1, b"".join(FORGED)), Frame(CLOSE, 1, b""),
               Frame(CREDIT, 0, bytes(4)), Frame(DATA, 3, b"\0x\0")]
FROM_HOST = [Frame(OPEN, 1, CREDIT_ONE), Frame(CREDIT, 1, CREDIT_ONE), Frame(DATA, 1, bytes(30)),
             Frame(DATA, 1, b"".join(FORGED)), Frame(END, 1, b""), Frame(CLOSE, 1, b"")]
# Who reads, what begins a session for him, what is sent to him in it.
ENDS = {"host": (mux.OF_SERVER, PRELUDE + frame(HELLO, 0, NEW), FROM_SERVER),
        "server": (mux.OF_HOST, frame(WELCOME, 0, NEW), FROM_HOST)}


class Reader:
    """One end, as far as sessions go: what it believes, and how often it lost a session."""

    def __init__(self, end: str) -> None:
        kinds, self.beginning, self.frames = ENDS[end]
        self.decoder = Decoder(kinds)
        self.believed: list[Frame] = []
        self.losses = 0
        self.decoder.search(NEW)

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        self.decoder.feed(data)
        while True:
            try:
                taken = self.decoder.take()
            except ChannelError:
                self.losses += 1
                self.decoder.search(NEW)
                continue
            if taken is None:
                return
            self.believed.append(taken)
            if taken.kind in (HELLO, WELCOME):
                self.decoder.synchronized()

    def begin(self) -> None:
        """A session; what was believed before is forgotten."""
        self.feed(self.beginning)
        assert self.believed[-1].payload == NEW
        self.believed.clear()


def stream(frames: list[Frame]) -> bytes:
    """The bytes of frames."""
    return b"".join(frame(*one) for one in frames)


@pytest.fixture(params=list(ENDS))
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Both ends, in turn, in a session."""
    one = Reader(request.param)
    one.begin()
    yield one


def test_any_portions(reader: Reader) -> None:
    """Frames come out as they went in, however the bytes are joined."""
    data = stream(reader.frames)
    for size in (1, 2, 3, 7, 15, 16, 17, 100, len(data)):
        reader.believed.clear()
        for start in range(0, len(data), size):
            reader.feed(data[start:start + size])
        assert reader.believed == reader.frames
    assert not reader.losses


def test_every_cut_and_a_new_session() -> None:
    """A life that ends at any byte: what was whole is believed, in order, then comes the next
    session; nothing of the cut frame, and none of those that payloads only look like."""
    data = stream(FROM_SERVER)
    for cut in range(len(data) + 1):
        reader = Reader("host")
        reader.begin()
        reader.feed(data[:cut])
        reader.feed(reader.beginning + data)
        (at,) = [place for place, one in enumerate(reader.believed) if one.kind == HELLO]
        before, after = reader.believed[:at], reader.believed[at + 1:]
        assert before == FROM_SERVER[:at], cut
        assert after == FROM_SERVER, cut


def test_every_cut_while_the_server_searches() -> None:
    """What was meant for a dead life, cut at any byte, then its successor's WELCOME."""
    data = stream(FROM_HOST)
    for cut in range(len(data) + 1):
        for rest in (b"", bytes(5), b"x" * 3):
            reader = Reader("server")
            reader.feed(frame(WELCOME, 0, OLD) + data[:cut] + rest)
            reader.feed(frame(WELCOME, 0, NEW) + data)
            assert reader.believed == [Frame(WELCOME, 0, NEW), *FROM_HOST], (cut, rest)


def test_every_cut_then_reset() -> None:
    """A multiplexer that dies in the middle of a session, and the next one's RESET."""
    data = stream(FROM_HOST)
    for cut in range(len(data) + 1):
        reader = Reader("server")
        reader.begin()
        reader.feed(data[:cut])
        reader.feed(PRELUDE + frame(RESET))
        assert reader.believed[-1].kind == RESET, cut
        assert reader.believed[:-1] == FROM_HOST[:len(reader.believed) - 1], cut


def test_a_cut_of_the_largest_frames() -> None:
    """A frame that is cut takes zeros for its own, of which there are enough for that, too. Its
    payload holds what would begin a session, behind as many zeros as fit."""
    for payload in (*FORGERY, bytes(DATA_MAX), b"x" + bytes(DATA_MAX - 1), b"x" * DATA_MAX):
        whole = frame(DATA, 1, payload)
        for cut in (*range(30), *range(len(whole) - 100, len(whole) + 1), DATA_MAX // 2):
            if cut < 0:
                continue
            reader = Reader("host")
            reader.begin()
            reader.feed(whole[:cut])
            reader.feed(reader.beginning)
            assert reader.believed[-1] == Frame(HELLO, 0, NEW), (payload[:9], cut)
            assert reader.believed[:-1] in ([], [Frame(DATA, 1, payload)]), cut


def test_every_flipped_bit(reader: Reader) -> None:
    """What is believed is what was sent, up to the frame that was hit; nothing behind it."""
    data = stream(reader.frames)
    for bit in range(len(data) * 8):
        hit = bytearray(data)
        hit[bit // 8] ^= 1 << bit % 8
        one = Reader("host" if reader.beginning[0] == 0 else "server")
        one.begin()
        one.feed(bytes(hit) + data)
        assert one.believed == one.frames[:len(one.believed)], bit
        assert len(one.believed) < len(one.frames), bit
        one.decoder.search(NEW)
        if reader.beginning[0] == 0:
            one.begin()
            one.feed(data)
            assert one.believed == one.frames, bit


def test_garbage_in_front() -> None:
    """Before a session nothing but its beginning counts."""
    chance = random.Random(1)
    for number in range(300):
        garbage = b"".join(chance.choice((
            chance.randbytes(chance.randrange(40)), bytes(chance.randrange(300)),
            frame(HELLO, 0, OLD), frame(DATA, 1, b"data"), stream(FROM_SERVER),
            frame(CREDIT, 1, CREDIT_ONE)[:chance.randrange(20)],
            b"x" + bytes(FRAME_MAX - 1) + frame(HELLO, 0, OLD)))
            for _ in range(chance.randrange(8)))
        data, reader = garbage + ENDS["host"][1] + stream(FROM_SERVER), Reader("host")
        size = chance.choice((1, 50, 1000, 1 << 16)) if len(data) < 20_000 else 1000
        for start in range(0, len(data), size):
            reader.feed(data[start:start + size])
        assert reader.believed == [Frame(HELLO, 0, NEW), *FROM_SERVER], f"number {number}"
        assert not reader.losses


@pytest.mark.parametrize("data", [
    mux.HEADER.pack(mux.MAGIC, 0, 0, 0, 0), mux.HEADER.pack(mux.MAGIC, 9, 0, 0, 0),
    mux.HEADER.pack(mux.MAGIC, DATA, 0, 0, 1), mux.HEADER.pack(mux.MAGIC, DATA, 0, DATA_MAX + 1, 1),
    mux.HEADER.pack(mux.MAGIC, DATA, 1, 5, 1), mux.HEADER.pack(mux.MAGIC, CREDIT, 0, 5, 1),
    mux.HEADER.pack(mux.MAGIC ^ 1, DATA, 0, 5, 1), mux.HEADER.pack(mux.MAGIC, RESET, 0, 0, 0)],
    ids=["kind 0", "kind 9", "no data", "too much data", "no zero", "CREDIT's size", "magic",
         "RESET without zeros"])
def test_headers_of_no_frame(data: bytes) -> None:
    """They are refused at once: nobody waits for what they promise."""
    data += mux.CHECKSUM.pack(mux.crc32(data))
    for end in ENDS:
        reader = Reader(end)
        reader.begin()
        reader.feed(data)
        assert reader.losses == 1 and not reader.believed


def test_who_sends_what() -> None:
    """A frame that the other end never sends is no frame."""
    for kind in (OPEN, END, WELCOME, RESET):
        reader = Reader("host")
        reader.begin()
        reader.feed(frame(kind, 1, bytes(mux.SIZES[kind])))
        assert reader.losses == 1


@pytest.mark.parametrize("unit", [frame(WELCOME, 0, OLD)[:4], b"\0x", frame(WELCOME, 0, OLD),
                                  bytes(300) + b"x", b"x"],
                         ids=["magic", "zeros", "frame", "more zeros", "nothing"])
def test_garbage_costs_what_its_length_costs(unit: bytes) -> None:
    """Whoever fills the channel with what may be the start of something buys no more time."""
    reader = Reader("server")
    began_s = time.process_time()
    for _ in range(16):
        reader.feed(unit * ((1 << 16) // len(unit)))
    assert time.process_time() - began_s < 3
    assert not reader.believed
