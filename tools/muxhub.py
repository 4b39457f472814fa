# SPDX-License-Identifier: Apache-2.0
"""The host's end of a channel: clients in, frames out, and back. No sockets, no clock.

H1. A client of a session that has ended is dropped, if it had credit: it may have been answered in
    part. One without credit has had nothing executed, and is opened again in the next session.
H2. What a client does not take waits here, at most WINDOW bytes, since that is the credit that the
    server has on it. It costs nobody else anything.
H3. Where there is no session, or one that the server has not confirmed by any frame although
    somebody waits, the server is asked for one: RESET, again and again with growing patience.
    A RESET then costs no client anything.
Frames, and why one can be found again after garbage: app/mux.py. The server's end is app/lines.py,
the sockets are in xsmux.py."""

from __future__ import annotations

from collections.abc import Callable

from app import mux
from app.mux import CLOSE, CREDIT, DATA, END, HELLO, OPEN, RESET, WELCOME, ChannelError, Frame

CONN_MAX = 0xFFFFFFFF
PATIENCE_MIN_S, PATIENCE_MAX_S = 0.2, 10.0


class Client:
    """Who wants to be served. `buffer`: bytes for it that it has not taken yet; `is_over`: there
    will be no more of them; `is_dropped`: nothing must be sent to it any more."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.conn = 0  # of the session
        self.buffer = bytearray()
        self.may_send = 0  # credit from the server
        self.is_granted = False  # it has had credit
        self.has_ended = False  # it sends no more
        self.is_over = False
        self.is_dropped = False
        self.granted = 0  # the server's credit
        self.taken = 0  # bytes taken that may be granted again

    @property
    def readable(self) -> int:
        """How many bytes may be read from it."""
        return 0 if self.has_ended or self.is_over or self.is_dropped else self.may_send

    @property
    def is_finished(self) -> bool:
        """Whether its socket is to be closed."""
        return self.is_dropped or (self.is_over and not self.buffer)


class Hub:
    """All clients of one channel. `tell` is told what a person may want to know. `touched`: the
    clients for whom something has changed; whoever carries the bytes empties it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.outgoing = bytearray()  # for the channel
        self.touched: set[Client] = set()
        self.is_connected = False
        self.sessions = 0  # so far
        self._tell = tell
        self._decoder = mux.Decoder(mux.OF_SERVER)
        self._by_conn: dict[int, Client] = {}  # of the session
        self._waiting: list[Client] = []  # for a session
        self._is_session = False
        self._is_confirmed = False
        self._next_conn = 1
        self._reset_s = 0.0  # when to lose patience
        self._patience_s = PATIENCE_MIN_S

    # -- the channel

    def connect(self, now_s: float) -> None:
        """There is a channel; a server may be on its other end."""
        self.is_connected = True
        self._patience_s = PATIENCE_MIN_S
        self._be_patient(now_s)

    def disconnect(self) -> None:
        """The channel has gone, and the server's session with it."""
        self.is_connected = False
        self._end()
        self._decoder.forget()

    def receive(self, data: bytes, now_s: float) -> None:
        """Bytes from the server."""
        self._decoder.feed(data)
        while True:
            try:
                frame = self._decoder.take()
                if frame is None:
                    return
                self._act(frame, now_s)
            except ChannelError as error:
                self._tell(f"the server's session is lost: {error}")
                self._end()
                self._be_patient(now_s)

    def wait_s(self, now_s: float) -> float | None:
        """How long until tick() has something to do; None for ever."""
        return max(self._reset_s - now_s, 0) if self._is_impatient else None

    def tick(self, now_s: float) -> None:
        """Time goes by."""
        if self._is_impatient and now_s >= self._reset_s:
            self._patience_s = min(2 * self._patience_s, PATIENCE_MAX_S)
            self._be_patient(now_s)
            if not self.outgoing:  # else the channel takes nothing: it would not help
                self._end()
                self.outgoing += mux.PRELUDE + mux.frame(RESET)

    @property
    def _is_impatient(self) -> bool:
        return self.is_connected and (not self._is_session or (
            not self._is_confirmed and bool(self._by_conn)))

    def _be_patient(self, now_s: float) -> None:
        self._reset_s = now_s + self._patience_s

    # -- clients

    @property
    def has_room(self) -> bool:
        """Whether clients may be read from, or accepted."""
        return len(self.outgoing) < mux.OUTGOING_MAX

    def join(self, client: Client) -> None:
        """Somebody has connected."""
        if self._is_session:
            self._open(client)
        else:
            self._waiting.append(client)

    def send(self, client: Client, data: bytes) -> None:
        """A client has sent bytes, at most may_send of them."""
        assert self._by_conn.get(client.conn) is client, "not a client of this session"
        assert 0 < len(data) <= client.may_send, (len(data), client.may_send)
        client.may_send -= len(data)
        self.outgoing += mux.data_frames(client.conn, data)

    def end(self, client: Client) -> None:
        """A client sends no more, but may still read. Before it had credit: call leave()."""
        assert client.is_granted and not client.has_ended
        client.has_ended = True
        if not client.is_over:
            self.outgoing += mux.frame(END, client.conn)

    def leave(self, client: Client) -> None:
        """A client is gone, or is no longer wanted. Again: nothing."""
        if self._by_conn.get(client.conn) is client:
            del self._by_conn[client.conn]
            self.outgoing += mux.frame(CLOSE, client.conn)
        elif client in self._waiting:
            self._waiting.remove(client)
        client.is_dropped = True
        client.buffer.clear()

    def take(self, client: Client, size: int) -> None:
        """A client has taken `size` bytes of its buffer."""
        del client.buffer[:size]
        client.taken += size
        if client.taken >= mux.REGRANT and not client.is_over:
            self._grant(client, client.taken)
            client.taken = 0

    def _grant(self, client: Client, size: int) -> None:
        client.granted += size
        assert client.granted <= mux.WINDOW
        self.outgoing += mux.frame(CREDIT, client.conn, mux.NUMBER.pack(size))

    def _open(self, client: Client) -> None:
        assert client.granted == client.may_send == 0 and not client.is_granted
        while self._next_conn in self._by_conn:
            self._next_conn = self._next_conn % CONN_MAX + 1
        client.conn = self._next_conn
        self._next_conn = self._next_conn % CONN_MAX + 1
        self._by_conn[client.conn] = client
        self.outgoing += mux.frame(OPEN, client.conn, mux.NUMBER.pack(client.pid))
        self._grant(client, mux.WINDOW)

    # -- sessions

    def _end(self) -> None:
        """H1. What waits for the channel is the session's; if its last frame has gone in part, the
        server, which searches, passes it by."""
        self.outgoing.clear()
        for client in self._by_conn.values():
            if client.is_granted:
                client.is_dropped = True
                client.buffer.clear()
                self.touched.add(client)
            else:
                client.granted = client.conn = 0
                self._waiting.append(client)
        self._by_conn.clear()
        self._is_session = self._is_confirmed = False
        self._decoder.search()

    def _begin(self, nonce: bytes, now_s: float) -> None:
        self._end()
        self._is_session = True
        self.sessions += 1
        self._decoder.synchronized()
        self._be_patient(now_s)
        self.outgoing += mux.frame(WELCOME, 0, nonce)
        waiting, self._waiting = self._waiting, []
        for client in waiting:
            self._open(client)

    def _act(self, frame: Frame, now_s: float) -> None:
        """Raises ChannelError for a frame that must not be sent."""
        kind, conn, payload = frame
        if kind == HELLO:
            self._begin(payload, now_s)
            return
        self._is_confirmed, self._patience_s = True, PATIENCE_MIN_S
        client = self._by_conn.get(conn)
        if client is None:
            return  # it has left
        self.touched.add(client)
        if kind == CREDIT:
            client.may_send += mux.number(payload)
            client.is_granted = True
            if client.may_send > mux.WINDOW:
                raise ChannelError(f"credit {client.may_send} on connection {conn}")
        elif kind == DATA:
            if len(payload) > client.granted or not client.is_granted:
                raise ChannelError(f"{len(payload)} bytes on connection {conn}, "
                                   f"which may send {client.granted}")
            client.granted -= len(payload)
            client.buffer += payload
        else:
            assert kind == CLOSE, kind
            client.is_over = True
            del self._by_conn[conn]
