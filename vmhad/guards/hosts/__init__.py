# SPDX-License-Identifier: Apache-2.0
"""The guard of compute hosts: one function a state. The package itself is the Guard that the kernel asks."""

from vmhad.guards.hosts.fence import fence, suspect
from vmhad.guards.hosts.lift import lift, rest
from vmhad.guards.hosts.recover import recover

__all__ = ["fence", "lift", "recover", "rest", "suspect"]
