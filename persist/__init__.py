# SPDX-License-Identifier: Apache-2.0
"""The persistent region: an append-only circular log. Knows bytes and git ids, not xenstore.

Reading order: layout, region, record, log, clean, recover; oid stands alone. FORMAT.md is the
grammar of every byte, in the same words.
"""
