# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations as both sides of them have to agree on: the driver that cuts hosts off, and their agents."""
