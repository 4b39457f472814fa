# SPDX-License-Identifier: Apache-2.0
"""Tests of the pure core: one file per file of app/, and the model comparison."""
