# SPDX-License-Identifier: Apache-2.0
"""Measurements: this server, C xenstored and oxenstored side by side."""
