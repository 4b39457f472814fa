# SPDX-License-Identifier: Apache-2.0
"""A built-in module inside a package: frozen under the name of each built-in module with a dot.

Python looks for built-in modules at top level only, and msgpack's C half wants to be known by its
full name, which its relative imports begin with. So this is found in its place, and puts the real
one there. Knows nothing of which module that is."""

from __future__ import annotations

import sys
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec

spec = BuiltinImporter.find_spec(__name__)
assert spec is not None and spec.loader is not None, f"{__name__} is not in the table"
module = sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(module)
