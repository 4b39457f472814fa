# SPDX-License-Identifier: Apache-2.0
"""What xsdump is made of: past.py gives the changes and states that a region remembers, everything
else shows them."""
