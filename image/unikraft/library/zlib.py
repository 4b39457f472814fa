# SPDX-License-Identifier: Apache-2.0
"""The one function of zlib that the server uses; Python has it elsewhere, too, so that the image
needs no zlib. Knows nothing of compression."""

from binascii import crc32

__all__ = ["crc32"]
