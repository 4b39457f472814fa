# SPDX-License-Identifier: Apache-2.0
"""The real process on a simulated Xen directory: guests on rings, ordinary and hostile."""
