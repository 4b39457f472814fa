# SPDX-License-Identifier: Apache-2.0
"""A machine without a hypervisor has no domains but 0. Method: by hand."""

from __future__ import annotations

import pytest

from app.errors import Einval
from app.host import NoHost


def test_no_host_has_no_domains() -> None:
    assert not any(NoHost().look(domid) for domid in (1, 2, 32751))
    with pytest.raises(Einval):
        NoHost().attach(1, 1, 1, 1)
