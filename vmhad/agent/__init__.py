# SPDX-License-Identifier: Apache-2.0
"""What runs on each compute host: it looks at its own host and at a few peers, and says what it sees."""
