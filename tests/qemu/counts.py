# SPDX-License-Identifier: Apache-2.0
"""What the tests have measured: printed by conftest.py at the end of every run."""

lines: list[str] = []


def tell(text: str) -> None:
    """Keep a line for the end of the run."""
    lines.append(text)
