# SPDX-License-Identifier: Apache-2.0
"""Real programs that no one here wrote, against the server as a process."""
