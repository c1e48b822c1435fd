# SPDX-License-Identifier: Apache-2.0
"""The guard of VMs that fail alone on a healthy host: one function a state. The package itself is the Guard that the
kernel asks."""

from vmhad.guards.instances.fence import fence, suspect
from vmhad.guards.instances.recover import lift, recover, rest

__all__ = ["fence", "lift", "recover", "rest", "suspect"]
