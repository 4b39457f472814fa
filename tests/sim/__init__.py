# SPDX-License-Identifier: Apache-2.0
"""A seeded world of many guests, honest and hostile, around a server that keeps dying."""
