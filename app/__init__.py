# SPDX-License-Identifier: Apache-2.0
"""The xenstore server. Pure core first (wire to store), edges last (journal, serve, __main__)."""
