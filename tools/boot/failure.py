# SPDX-License-Identifier: Apache-2.0
"""The one error of these tools."""

from __future__ import annotations


class BootError(Exception):
    """Something could not be done; the text says what, with the domain, and why."""
