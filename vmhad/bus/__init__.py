# SPDX-License-Identifier: Apache-2.0
"""What agents and engines say to each other: its names, its bytes, its signature, its exchange. Used on both ends."""
