# SPDX-License-Identifier: Apache-2.0
"""Adapters of ports.Nudges: edges that say «look now», and never more."""
