# SPDX-License-Identifier: Apache-2.0
"""What agents and engines say to each other: its names, its bytes and its signature. Used on both ends, and no I/O."""
