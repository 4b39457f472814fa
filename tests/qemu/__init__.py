# SPDX-License-Identifier: Apache-2.0
"""The image, booted for real in QEMU."""
