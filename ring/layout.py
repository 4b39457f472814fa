# SPDX-License-Identifier: Apache-2.0
"""struct xenstore_domain_interface: every offset, size and constant of a xenstore ring page.

L1. The four indices and the three words behind them are 32-bit and aligned: one store each.
Source: Xen's public header io/xs_wire.h and docs/misc/xenstore-ring.txt."""

PAGE_SIZE = 4096
RING_SIZE = 1024  # of each direction
RING_MASK = RING_SIZE - 1

REQ_OFFSET = 0  # requests: the guest writes, the server reads
RSP_OFFSET = 1024  # replies and events: the server writes, the guest reads
REQ_CONS = 2048
REQ_PROD = 2052
RSP_CONS = 2056
RSP_PROD = 2060
SERVER_FEATURES = 2064
CONNECTION = 2068
ERROR = 2072
EVTCHN_PORT = 2076  # filled by Xen for domains that a hypervisor boot made; not used here

FEATURE_RECONNECTION = 1  # not offered: whoever starts anew is introduced anew
FEATURE_ERROR = 2
FEATURE_WATCH_DEPTH = 4
FEATURE_DOMID_ANY = 8

CONNECTED = 0  # values of the connection word
RECONNECT = 1  # whoever made the domain, or the guest: not connected yet

ERROR_NONE = 0  # values of the error word
ERROR_COMM = 1
ERROR_RINGIDX = 2
ERROR_PROTO = 3

GREF_XENSTORE = 1  # GNTTAB_RESERVED_XENSTORE: the same in every domain, and in every life of it

assert REQ_OFFSET + RING_SIZE == RSP_OFFSET
assert RSP_OFFSET + RING_SIZE == REQ_CONS
assert RING_SIZE & RING_MASK == 0
assert all(offset % 4 == 0 and offset + 4 <= PAGE_SIZE for offset in (
    REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, SERVER_FEATURES, CONNECTION, ERROR, EVTCHN_PORT))
