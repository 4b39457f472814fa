# SPDX-License-Identifier: Apache-2.0
"""`storm.py COUNT KINDS`: crashes over dom0's ring as in crashes.py, of KINDS in turn, at moments
that nobody can foresee. The last line says how many went well, and the outages in ms."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time

from crashes import LIFE_S, crash

GAP_MAX_S = 1.2


def main(count: int, kinds: list[str]) -> int:
    """Until one does not go well."""
    fd = os.open("/dev/xen/xenbus", os.O_RDWR)
    outages: list[float] = []
    for number, kind in zip(range(count), itertools.cycle(kinds)):
        complaint, outage_s = crash(fd, kind, number)
        print(f"{kind}: {1000 * outage_s:.0f} ms {complaint}", flush=True)
        if complaint:
            break
        outages.append(1000 * outage_s)
        time.sleep(random.uniform(LIFE_S, GAP_MAX_S))
    outages.sort()
    print(f"{len(outages)} of {count}; outages: median {outages[len(outages) // 2]:.0f} ms, worst "
          f"{outages[-1]:.0f} ms" if outages else f"0 of {count}")
    return 0 if len(outages) == count else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2].split()))
