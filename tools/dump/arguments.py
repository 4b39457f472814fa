# SPDX-License-Identifier: Apache-2.0
"""Words of a command line that are not taken as they are: numbers, sizes, pairs, paths.

Each raises argparse.ArgumentTypeError with what was expected instead."""

from __future__ import annotations

from argparse import ArgumentTypeError

from app.__main__ import UsageError, parse_size


def number(word: str) -> int:
    """A number, a domid for example."""
    if not word.isdecimal():
        raise ArgumentTypeError(f"expected a number, not {word!r}")
    return int(word)


def positive(word: str) -> int:
    """A number that is not 0."""
    if number(word) == 0:
        raise ArgumentTypeError("expected 1 or more")
    return number(word)


def size(word: str) -> int:
    """Bytes."""
    try:
        return parse_size(word)
    except UsageError as error:
        raise ArgumentTypeError(f"{word}: expected a number, or one with K, M or G") from error


def pair(word: str, separator: str, names: str) -> tuple[int, int]:
    """Two numbers."""
    first, _, second = word.partition(separator)
    try:
        return int(first), int(second)
    except ValueError as error:
        raise ArgumentTypeError(f"expected {names}, two numbers, not {word!r}") from error


def clean_path(word: str) -> str:
    """A path as somebody writes it: without the slash at its end."""
    return word.rstrip("/") or "/" if word.startswith("/") else word
