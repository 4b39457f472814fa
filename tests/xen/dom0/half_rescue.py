# SPDX-License-Identifier: Apache-2.0
"""`half_rescue.py DOMID KERNEL RAMDISK WORDS`: what a watcher has done when it dies in the middle
of a rescue, at the worst place: the region is in a file, and the dead domain is destroyed."""

from __future__ import annotations

import sys
import time

from tools.boot import rescue
from tools.boot.libxen import Xen
from tools.boot.place import place_of_image
from tools.xsboot import SAVED

DEATH_S = 20.0

xen = Xen()
end_s = time.monotonic() + DEATH_S
while (domain := xen.domain(int(sys.argv[1]))) is not None and not domain.has_ended:
    assert time.monotonic() < end_s, "it has not died"
    time.sleep(0.05)
assert domain is not None
kernel, ramdisk, words = sys.argv[2:]
image = rescue.Image(kernel, ramdisk, words, place_of_image(kernel, words))
with rescue.open_region(domain, image.place) as memory:
    rescue.gather(memory, domain, image, SAVED)
xen.destroy(domain.domid)
