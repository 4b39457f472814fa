# SPDX-License-Identifier: Apache-2.0
"""Many connections over one byte channel: frames to bytes, bytes to frames. No sockets, no devices.

The server has the clients of another machine, the host, to whom nothing leads but a stream of
bytes. A frame, little-endian: magic u32, kind u8, zero u8, size of the payload u16, conn u32,
crc32 u32 of all of it but itself; then the payload.

  kind     sent by  payload
  HELLO    server   nonce, 16 bytes: a session begins; whatever was, is over
  WELCOME  host     the same nonce: from here on everything belongs to that session
  RESET    host     none: begin a session; the host knows of none
  OPEN     host     pid u32: a client is there
  DATA     both     1 to 8192 bytes
  CREDIT   both     u32: how many bytes more the other may send on this connection
  END      host     none: the client sends no more, but may still read
  CLOSE    both     none: the connection is over, in both directions

M1. Either end may die at any byte, and what was under way for it still arrives. So a session ends
    for whoever meets a byte that belongs to no frame of it; nothing behind that is believed but
    HELLO, RESET, and the WELCOME with the nonce of the session that this end has begun.
M2. HELLO and RESET count only behind FRAME_MAX zero bytes, which is more than fit into a payload:
    no client can write a value that is taken for one. Twice as many are sent, because a frame that
    was cut takes the first of them for its own; so it is completed, and refused.
M3. Nobody sends more DATA than he has credit for, and nobody grants more than WINDOW: what one
    connection can make the other end hold is bounded. The host reads nothing from a client before
    the server's first CREDIT: a client without credit has had nothing executed.
M4. The host numbers connections upwards, none twice in a session. A frame for a connection that is
    not there has crossed with a CLOSE, and is ignored.
M5. The host always reads; the server does not while its own bytes are not taken. So neither waits
    for the other in a circle.
Used by lines.py and channel.py here, by tools/xsmux.py on the host. Knows nothing of xenstore."""

from __future__ import annotations

import re
from binascii import crc32
from struct import Struct
from typing import NamedTuple

MAGIC = 0xB5C4A3D7
HEADER = Struct("<IBBHI")  # magic, kind, zero, size, conn; the checksum follows
CHECKSUM = Struct("<I")
NUMBER = Struct("<I")  # the payload of OPEN and CREDIT
HEADER_SIZE = HEADER.size + CHECKSUM.size
DATA_MAX = 8192  # bytes of one frame's payload
FRAME_MAX = HEADER_SIZE + DATA_MAX
NONCE_SIZE = 16
WINDOW = 1 << 16  # bytes of credit on one connection, at most
REGRANT = WINDOW // 4  # bytes taken that make a CREDIT worth its frame
CONNECTIONS_MAX = 1024
OUTGOING_MAX = 1 << 18  # bytes waiting for the channel beyond which no DATA is added

HELLO, WELCOME, RESET, OPEN, DATA, CREDIT, END, CLOSE = range(1, 9)
SIZES = {HELLO: NONCE_SIZE, WELCOME: NONCE_SIZE, RESET: 0, OPEN: NUMBER.size,
         CREDIT: NUMBER.size, END: 0, CLOSE: 0}  # of payloads; DATA's varies
BEHIND_ZEROS = (HELLO, RESET)
OF_SERVER = frozenset((HELLO, DATA, CREDIT, CLOSE))
OF_HOST = frozenset((WELCOME, RESET, OPEN, DATA, CREDIT, END, CLOSE))
PRELUDE = bytes(2 * FRAME_MAX)

_MAGIC = NUMBER.pack(MAGIC)
_ZEROS = re.compile(rb"\0*")
_LANDMARK = re.compile(re.escape(_MAGIC) + rb"|\0{256}")
assert 0 not in _MAGIC, "zeros and the start of a frame could not be told apart"
assert HEADER_SIZE == 16 and DATA_MAX < 1 << 16 and REGRANT < WINDOW


class ChannelError(Exception):
    """The other end sent what no frame is, or a frame that it must not send: M1."""


class Frame(NamedTuple):
    """A frame whose checksum is right."""

    kind: int
    conn: int
    payload: bytes


def frame(kind: int, conn: int = 0, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    assert len(payload) == SIZES.get(kind, len(payload)) <= DATA_MAX
    head = HEADER.pack(MAGIC, kind, 0, len(payload), conn)
    return head + CHECKSUM.pack(crc32(payload, crc32(head))) + payload


def data_frames(conn: int, data: bytes) -> bytes:
    """DATA frames that hold all of `data`."""
    if len(data) <= DATA_MAX:
        return frame(DATA, conn, data)
    return b"".join(frame(DATA, conn, data[start:start + DATA_MAX])
                    for start in range(0, len(data), DATA_MAX))


def number(payload: bytes) -> int:
    """The number that an OPEN or a CREDIT holds."""
    value: int = NUMBER.unpack(payload)[0]
    return value


class Decoder:
    """Bytes in, frames of the other end's `kinds` out. It searches (M1) until synchronized()."""

    def __init__(self, kinds: frozenset[int]) -> None:
        self._kinds = kinds
        self._data = b""
        self._start = 0  # of what has not been looked at
        self._zeros = 0  # that stand right before it
        self._nonce = b""
        self._is_searching = True

    def search(self, nonce: bytes = b"") -> None:
        """Believe nothing but HELLO, RESET, and a WELCOME with this nonce."""
        self._is_searching, self._nonce = True, nonce

    def synchronized(self) -> None:
        """What follows the frame that was taken last is a session's: frame upon frame."""
        self._is_searching = False

    def forget(self) -> None:
        """Another stream of bytes begins."""
        self._data, self._start, self._zeros = b"", 0, 0
        self.search()

    def feed(self, data: bytes) -> None:
        """Bytes have come. At most FRAME_MAX of those before are still here, if take() has
        been called until it had no more."""
        self._data = self._data[self._start:] + data
        self._start = 0

    def take(self) -> Frame | None:
        """The next frame, None if it is not complete. Raises ChannelError in a session, where the
        next byte belongs to none; the next call may search."""
        while True:
            self._pass_zeros()
            data, start = self._data, self._start
            if len(data) - start < HEADER_SIZE:
                return None
            magic, kind, zero, size, conn = HEADER.unpack_from(data, start)
            if (magic == MAGIC and not zero and kind in self._kinds and self._is_due(kind)
                    and (size == SIZES[kind] if kind != DATA else 0 < size <= DATA_MAX)):
                body = start + HEADER_SIZE
                if len(data) < body + size:
                    return None
                payload = data[body:body + size]
                if self._is_right(data, start, payload) and (
                        kind != WELCOME or payload == self._nonce):
                    self._start, self._zeros = body + size, 0
                    return Frame(kind, conn, payload)
            self._pass_garbage()

    def _is_due(self, kind: int) -> bool:
        """Whether such a frame counts here."""
        if kind in BEHIND_ZEROS:
            return self._zeros >= FRAME_MAX
        return kind == WELCOME if self._is_searching else not self._zeros

    @staticmethod
    def _is_right(data: bytes, start: int, payload: bytes) -> bool:
        end = start + HEADER.size
        return bool(CHECKSUM.unpack_from(data, end)[0] == crc32(payload, crc32(data[start:end])))

    def _pass_zeros(self) -> None:
        run = _ZEROS.match(self._data, self._start)
        assert run is not None, "no zeros are a run, too"
        self._zeros += run.end() - self._start
        self._start = run.end()

    def _pass_garbage(self) -> None:
        """Go on at what could be a frame, or at zeros that could stand before one."""
        if not self._is_searching:
            raise ChannelError(f"no frame: {self._data[self._start:][:HEADER_SIZE].hex()}")
        data, after = self._data, self._start + 1
        found = _LANDMARK.search(data, after)
        if found is not None:
            self._start = found.start()
        else:  # zeros or half a magic at the end may go on in what comes next
            kept = min(len(data) - len(_MAGIC) + 1, len(data.rstrip(b"\0")))
            self._start = max(after, kept)
        self._zeros = 0
