# SPDX-License-Identifier: Apache-2.0
"""Exactly once: from what was logged of a ring, and from what its page says, to where it stands.

The page outlives the server, so its indices are the guest's receipt. Per turn the server
  1 logs     requests consumed up to `after`; the bytes of the reply stream up to `end`
  2 copies   bytes behind `sent` into the ring, as many as fit
  3 stores   rsp_prod
  4 stores   req_cons
and 2 and 3 again whenever the guest makes room. Dying between any two of these:
  before 1   the log knows nothing of the turn: the request is peeked and executed again
  1 to 3     rsp_prod says `sent`: all is still owed
  3 to 4     rsp_prod says what the guest has; req_cons is behind and is stored again
  after 4    only the notification may be missing: a start notifies every ring

Turns without durable changes are in one of two turn slots, and later turns take their place. So a
ring may have gone on since its newest entry, by at most FORWARD_MAX; but then it is owed nothing.
A page that says anything else was not written by us: its ring is not believed.
Pure. Change with: connection.py, and FORMAT.md section 8 of persist/."""

from __future__ import annotations

from typing import NamedTuple

from ring.index import position_of

FORWARD_MAX = 1 << 31  # a ring is logged anew before it has gone so far


class Logged(NamedTuple):
    """The newest entry of a ring in log or slots; 64-bit stream positions.

    `before` and `after`: requests consumed before and after its turn; `sent`: reply bytes that
    were published when it was written, `end`: up to which bytes were owed. `is_last`: it is of
    the very last turn, so nothing can have happened on the ring since."""

    before: int
    after: int
    sent: int
    end: int
    is_last: bool


class Standing(NamedTuple):
    """Where the ring stands: consumed and sent so far."""

    consumed: int
    sent: int


def stand(logged: Logged, req_cons: int, rsp_prod: int) -> Standing | None:
    """Where to go on, from the two indices in the page; None: not to be believed."""
    sent = position_of(rsp_prod, logged.sent)
    consumed = position_of(req_cons, logged.before)
    may_have_gone_on = not logged.is_last
    if sent > logged.end and not (may_have_gone_on and sent - logged.end < FORWARD_MAX):
        return None
    if consumed <= logged.after:
        # Between steps 1 and 4. If the ring had gone on since, step 4 was done.
        return Standing(logged.after, sent) if sent <= logged.end else None
    if may_have_gone_on and consumed - logged.after < FORWARD_MAX and sent >= logged.end:
        return Standing(consumed, sent)
    return None
