# SPDX-License-Identifier: Apache-2.0
"""The server on a real Xen: hypervisor, dom0, toolstack and Linux guests, emulated by QEMU."""
