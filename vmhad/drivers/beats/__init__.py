# SPDX-License-Identifier: Apache-2.0
"""Adapters of ports.Beats: what the agents of the compute hosts say."""
