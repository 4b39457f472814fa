# SPDX-License-Identifier: Apache-2.0
"""Wire errors as exceptions, and the one that means our own mistake.

E1. An XsError becomes an ERROR reply and leaves the state untouched.
E2. An InvariantError is never caught: the process ends, and recovery is the repair.
Source of the names: the protocol's error table (docs/misc/xenstore.txt of Xen)."""


class XsError(Exception):
    """A client's mistake, or a limit it met; `name` is sent on the wire."""

    name = b"EINVAL"


class Einval(XsError):
    """Malformed request, path or argument."""


class Eacces(XsError):
    """The caller may not do this, or may not even know whether it could be done."""

    name = b"EACCES"


class Eexist(XsError):
    """The watch is registered already."""

    name = b"EEXIST"


class Enoent(XsError):
    """No such node, watch, transaction or domain."""

    name = b"ENOENT"


class Enomem(XsError):
    """A domain's memory quota is used up, or a transaction has failed before."""

    name = b"ENOMEM"


class Enospc(XsError):
    """A quota, or the space for live data, is used up."""

    name = b"ENOSPC"


class Enosys(XsError):
    """No such message type, or not on this host."""

    name = b"ENOSYS"


class Ebusy(XsError):
    """Nested transaction, or too late to change a feature."""

    name = b"EBUSY"


class Eagain(XsError):
    """The transaction conflicts: the client is to run it again."""

    name = b"EAGAIN"


class E2big(XsError):
    """The reply would be larger than a message may be."""

    name = b"E2BIG"


class Eperm(XsError):
    """Only the privileged may give a node away."""

    name = b"EPERM"


class InvariantError(Exception):
    """Our own mistake: going on would do harm."""
