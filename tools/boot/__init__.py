# SPDX-License-Identifier: Apache-2.0
"""What xsboot is made of: one concern a file, each on Linux's or Xen's own interface."""
