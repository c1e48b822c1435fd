# SPDX-License-Identifier: Apache-2.0
"""ports.Hands: orders to the agents of the compute hosts."""
