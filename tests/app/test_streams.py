# SPDX-License-Identifier: Apache-2.0
"""What the log holds of rings is counted right: the live entries are, at any moment, the newest of
each ring and every one with bytes that are still owed; what is carried says all of it again; and no
ring goes half around without being logged. Method: random histories of rings on a log that is a
list of entries, in which a naive count finds the live ones by looking at all; in the end a replay
of what was not forgotten gives every stream as it is.

Cannot show: the journal's part, which keeps the counts per segment (tests/app/test_journal.py)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from app.codec import Stream
from app.replay import IN_LOG, FoundStream
from app.streams import BYTES_PER_RECORD, ENTRY_BYTES, STREAM_GAP_MAX, StreamBook


class Source:
    """A ring: what it consumed, sent and owes. Implements StreamSource."""

    def __init__(self, epoch: int, base: int = 0) -> None:
        self.conn_id = epoch
        self.consumed = self.before = base
        self.sent = base
        self.unsent = b""

    @property
    def end(self) -> int:
        """Up to where bytes are owed."""
        return self.sent + len(self.unsent)

    def whole_stream(self) -> Stream:
        """Where it stands."""
        return Stream(self.conn_id, self.before, self.consumed, self.sent, self.sent, self.unsent,
                      b"")

    def turn(self, asked: int, data: bytes) -> Stream:
        """A turn's entry."""
        before, self.consumed = self.consumed, self.consumed + asked
        stream = Stream(self.conn_id, before, self.consumed, self.sent, self.end, data, b"")
        self.before = self.consumed
        self.unsent += data
        return stream

    def read(self, most: int) -> None:
        """The guest takes some."""
        self.sent += len(self.unsent[:most])
        self.unsent = self.unsent[most:]


class History:
    """Rings, their book, and a log of (position, stream)."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.live: Counter[int] = Counter()  # what the book has told, position -> entries
        self.log: dict[int, list[Stream]] = {}
        self.book = StreamBook(self.died)
        self.rings: dict[int, Source] = {}
        self.tail = 100
        self.epochs = 0

    def died(self, position: int) -> None:
        """The book says so."""
        self.live[position] -= 1
        assert self.live[position] >= 0, "an entry died twice"

    def record(self, streams: list[Stream]) -> None:
        """A TURN record."""
        self.live[self.tail] += sum(self.book.take(stream, self.tail) for stream in streams)
        self.log[self.tail] = streams
        self.tail += 10

    def attach(self) -> None:
        """A new ring."""
        self.epochs += 1
        ring = self.rings[self.epochs] = Source(self.epochs, self.chance.choice([0, (1 << 40) - 7]))
        assert self.book.begin(ring) == []
        self.record([ring.whole_stream()])

    def detach(self) -> None:
        """A ring's end."""
        epoch = self.chance.choice(list(self.rings))
        del self.rings[epoch]
        ended = [epoch, 10_000]  # one that never was, too
        self.book.end(ended)
        assert ended == []

    def carry(self, begin: int, is_lost: bool) -> None:
        """Carry what is live in records from `begin` up to some place, and forget them."""
        end = self.chance.randrange(begin, self.tail + 1)
        for position in [one for one in sorted(self.log) if begin <= one < end]:
            if not is_lost:
                self.book.collect(self.log[position], position)
        if is_lost:
            self.book.collect_lost(begin, end)
        while True:
            streams, born = self.book.carry(self.tail)
            if not streams:
                assert born == 0
                break
            self.live[self.tail] += born
            self.log[self.tail] = streams
            self.tail += 10
        for position in [one for one in self.log if begin <= one < end]:
            assert self.live[position] == 0, "not all of it was carried"
            del self.log[position]

    def step(self) -> None:
        """Anything."""
        what = self.chance.random()
        if not self.rings or what < 0.05:
            self.attach()
        elif what < 0.08:
            self.detach()
        elif what < 0.55:
            some = self.chance.sample(list(self.rings.values()),
                                      min(len(self.rings), self.chance.randrange(1, 4)))
            self.record([one.turn(self.chance.choice([0, 30]), self.chance.randbytes(
                self.chance.choice([0, 20, 3000]))) for one in some])
        elif what < 0.9:
            self.chance.choice(list(self.rings.values())).read(self.chance.choice([10, 1024, 9999]))
        elif self.log:
            self.carry(min(self.log), is_lost=self.chance.random() < 0.2)

    def naive(self) -> Counter[int]:
        """The least that must be live, from all entries there are: the newest of each ring, and
        those that hold a byte that is owed still and that no later entry says again."""
        found: Counter[int] = Counter()
        for epoch, ring in self.rings.items():
            own = [(position, stream) for position, streams in sorted(self.log.items())
                   for stream in streams if stream.epoch == epoch]
            found[own[-1][0]] += 1
            said_again = ring.end + 1
            for position, stream in reversed(own):
                end = min(stream.start + len(stream.data), said_again)
                if stream.data and end > ring.sent and end > stream.start:
                    found[position] += 1
                said_again = min(said_again, stream.start)
        return +found


@pytest.mark.parametrize("seed", range(20))
def test_live_entries_are_those_that_are_needed(seed: int) -> None:
    """None that is needed is ever called dead; and when every ring has been recorded once more,
    which is when the book hears of what was read, none that is not needed is called live."""
    history = History(seed)
    carried = 0
    for number in range(400):
        before = history.tail
        history.step()
        carried += history.tail - before > 10
        needed = history.naive()
        assert all(history.live[position] >= count for position, count in needed.items()), number
        if number % 20 == 19:
            history.record([ring.turn(0, b"") for ring in history.rings.values()])
            assert +history.live == history.naive(), number
    assert carried, "nothing was ever carried in several records"


@pytest.mark.parametrize("seed", range(20))
def test_a_replay_of_what_is_left_gives_every_stream(seed: int) -> None:
    """A2: whatever was carried and forgotten meanwhile. And the next life counts alike."""
    history = History(seed)
    for _ in range(300):
        history.step()
    found: dict[int, FoundStream] = {}
    for position, streams in sorted(history.log.items()):
        for stream in streams:
            found.setdefault(stream.epoch, FoundStream()).apply(stream, (position, IN_LOG))
    for epoch, ring in history.rings.items():
        one = found[epoch]
        assert (one.after, one.end) == (ring.consumed, ring.end)
        assert one.sent <= ring.sent and one.owed(ring.sent) == ring.unsent
    again = StreamBook(history.died)
    live = Counter(position for epoch, ring in history.rings.items()
                   for position in again.begin(ring, found[epoch]))
    history.live, history.book = live, again
    history.record([ring.turn(0, b"") for ring in history.rings.values()])
    assert +history.live == history.naive()


def test_carried_entries_are_bounded_records() -> None:
    """Each holds at least one ring's, and no more once it is full; a carried entry is born."""
    history = History(1)
    for _ in range(40):
        history.attach()
    history.record([ring.turn(5, bytes(3000)) for ring in history.rings.values()])
    history.book.collect_lost(0, history.tail)
    sizes, seen = [], []
    while (carried := history.book.carry(history.tail))[0]:
        streams, born = carried
        assert born == 2 * len(streams)  # the newest, and it holds bytes
        assert all(stream == history.rings[stream.epoch].whole_stream() for stream in streams)
        sizes.append(sum(ENTRY_BYTES + len(stream.data) for stream in streams))
        seen += [stream.epoch for stream in streams]
    assert sorted(seen) == sorted(history.rings)
    assert max(sizes) < BYTES_PER_RECORD + ENTRY_BYTES + 3000 and len(sizes) > 10
    assert sum(history.live.values()) == 0, "the old entries are not live any more"


def test_what_carrying_takes_is_never_underestimated() -> None:
    """An entry that owes nothing, with the largest numbers there are."""
    from app import codec
    history = History(1)
    history.attach()
    history.book.owed_bytes = lambda: 500
    stream = Stream(1 << 40, (1 << 62) - 1, (1 << 62) + 4096, 1 << 62, 1 << 62, bytes(500), b"")
    taken = len(codec.encode_slot(1, [stream])) - len(codec.encode_slot(1, []))
    assert taken <= history.book.live_bytes() == 500 + ENTRY_BYTES


@pytest.mark.parametrize("asked, sent, input_, may", [
    (0, 0, b"", True), (STREAM_GAP_MAX, 0, b"", True), (STREAM_GAP_MAX + 1, 0, b"", False),
    (0, STREAM_GAP_MAX, b"", True), (0, STREAM_GAP_MAX + 1, b"", False),
    (STREAM_GAP_MAX, STREAM_GAP_MAX, b"", True), (5, 5, b"x", False)])
def test_who_has_gone_far_or_holds_a_part_of_a_request_is_logged(asked: int, sent: int,
                                                                 input_: bytes, may: bool) -> None:
    """A3; and a ring of which the log holds nothing."""
    history = History(1)
    history.attach()
    base = history.rings[1].consumed
    stream = Stream(1, base, base + asked, base + sent, base + sent, b"", input_)
    assert history.book.may_stay_out([stream]) is may
    assert history.book.may_stay_out([])
    other = Source(2)
    history.book.begin(other)
    assert not history.book.may_stay_out([other.whole_stream()])
    history.rings[2] = other
    history.record([other.whole_stream(), stream._replace(input=b"")])
    assert history.book.may_stay_out([other.whole_stream(), stream._replace(input=b"")])
