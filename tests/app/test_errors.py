# SPDX-License-Identifier: Apache-2.0
"""Only names of the protocol's error table go out, for clients take any other for EINVAL (pitfall
15: there is no EQUOTA). Method: the classes against the table, as the reference 1.2 lists it."""

from __future__ import annotations

import pytest

from app import errors
from app.errors import InvariantError, XsError

PROTOCOL = ["EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO",
            "ENOTEMPTY", "ENOSYS", "EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM"]
CLASSES = [one for one in vars(errors).values()
           if isinstance(one, type) and issubclass(one, XsError)]


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_the_name_is_in_the_protocol_and_is_the_class(one: type[XsError]) -> None:
    assert one.name.decode() in PROTOCOL
    if one is not XsError:
        assert one.__name__.upper() == one.name.decode()


def test_no_two_classes_share_a_name() -> None:
    names = [one.name for one in CLASSES if one is not XsError]
    assert len(names) == len(set(names))


def test_our_own_mistake_is_no_answer_to_a_client() -> None:
    assert not issubclass(InvariantError, XsError)
