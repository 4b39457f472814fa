# SPDX-License-Identifier: Apache-2.0
"""`destroy.py DOMID`: have Xen destroy a domain, without a word to xenstore."""

from __future__ import annotations

import sys

from ring.linux import DOMCTL_HEADER, HYPERVISOR_DOMCTL, Devices, _Domains

XEN_DOMCTL_DESTROYDOMAIN = 2

devices = Devices()
domains = _Domains(devices, devices.open("privcmd"))
version = domains._domctl_version
domains._call(HYPERVISOR_DOMCTL, DOMCTL_HEADER.pack(XEN_DOMCTL_DESTROYDOMAIN, version,
                                                    int(sys.argv[1])))
