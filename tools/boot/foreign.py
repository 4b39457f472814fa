# SPDX-License-Identifier: Apache-2.0
"""Memory of another domain, mapped through /dev/xen/privcmd: running, paused, crashed, or shut
down, as long as it is not destroyed. No library, no xenstore.

M1. All frames are mapped, or none: one that Xen refuses is an error that names it.
M2. Bytes are copied out of the mapping and into it; nothing keeps a view of it.
M3. Who does not say that it writes gets a mapping that cannot be written.
M4. Frames are the domain's own numbers of its pages; a PV domain's, the machine's (frames.py).
As long as it is mapped, the domain cannot go away as a whole: close it before it is to be gone.
Knows nothing of what the bytes mean. Implements persist.region.Medium."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence

from ring.linux import ioctl_number
from tools.boot.failure import BootError
from tools.boot.place import Place

PRIVCMD = "/dev/xen/privcmd"
PAGE_SIZE = 4096
# linux/include/uapi/xen/privcmd.h: num, dom, addr, arr, err
MMAPBATCH_V2 = struct.Struct("=IH2xQQQ")
IOCTL_PRIVCMD_MMAPBATCH_V2 = ioctl_number("P", 4, MMAPBATCH_V2.size)
MAP_FAILED = ctypes.c_void_p(-1).value

assert MMAPBATCH_V2.size == 32

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class ForeignMemory:
    """A range of a domain's memory; `frames` are where it is if that is not where the domain sees
    it (M4). Raises BootError."""

    def __init__(self, domid: int, place: Place, may_write: bool = False,
                 frames: Sequence[int] | None = None) -> None:
        self.size = place.size
        self.path = f"domain {domid}, {place}"
        self._may_write = may_write
        self._address: int | None = None
        what = f"domain {domid}: mapping its memory"
        try:
            fd = os.open(PRIVCMD, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise BootError(f"{PRIVCMD}: {error.strerror}; is this dom0, and are we root?") \
                from error
        try:
            self._address = self._map(fd)
            first = place.address // PAGE_SIZE
            self._fill(fd, domid, place, frames if frames is not None else
                       range(first, first + place.size // PAGE_SIZE))
        except OSError as error:
            self.close()
            raise BootError(f"{what}: {error.strerror}") from error
        except BootError:
            self.close()
            raise
        finally:
            os.close(fd)

    def _map(self, fd: int) -> int:
        """An empty mapping of the device."""
        flags = mmap.PROT_READ | (mmap.PROT_WRITE if self._may_write else 0)
        address = _libc.mmap(None, self.size, flags, mmap.MAP_SHARED, fd, 0)
        if address is None or address == MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(address)

    def _fill(self, fd: int, domid: int, place: Place, numbers: Sequence[int]) -> None:
        """Have the domain's frames in it (M1)."""
        count = len(numbers)
        assert count == place.size // PAGE_SIZE
        frames = (ctypes.c_uint64 * count)(*numbers)
        errors = (ctypes.c_int * count)()
        fcntl.ioctl(fd, IOCTL_PRIVCMD_MMAPBATCH_V2, MMAPBATCH_V2.pack(
            count, domid, self._address, ctypes.addressof(frames), ctypes.addressof(errors)))
        for index, number in enumerate(errors if any(bytes(errors)) else ()):
            if number:
                raise BootError(f"domain {domid}: its memory at "
                                f"{place.address + index * PAGE_SIZE:#x} "
                                f"cannot be mapped: {os.strerror(abs(number))}; --region says "
                                "where the region is")

    def read(self, offset: int, size: int) -> bytes:
        """A copy of some bytes, as they are now."""
        assert self._address is not None and 0 <= offset <= self.size - size, (hex(offset), size)
        return ctypes.string_at(self._address + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        assert self._address is not None and self._may_write
        assert 0 <= offset <= self.size - len(data), (hex(offset), len(data))
        ctypes.memmove(self._address + offset, data, len(data))

    def close(self) -> None:
        """Give the mapping back."""
        if self._address is not None:
            _libc.munmap(self._address, self.size)
            self._address = None

    def __enter__(self) -> ForeignMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
