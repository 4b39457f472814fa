# SPDX-License-Identifier: Apache-2.0
"""Servers to compare with: Debian's xenstored and oxenstored without Xen; and ours as a process."""
