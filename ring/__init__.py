# SPDX-License-Identifier: Apache-2.0
"""Xen's shared rings: knows bytes and positions, not xenstore, not the log.

Reading order: layout, index, page, queue, connection, delivery; then host (what a machine must
offer) and its adapters sim, linux.
"""
