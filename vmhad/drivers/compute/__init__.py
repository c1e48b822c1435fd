# SPDX-License-Identifier: Apache-2.0
"""Adapters of ports.Compute: Nova, with what Placement has left."""
