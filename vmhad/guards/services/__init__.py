# SPDX-License-Identifier: Apache-2.0
"""The guard of the services of a living host: one function a state. The package itself is the Guard that the kernel
asks. It touches no VM."""

from vmhad.guards.services.fence import fence, suspect
from vmhad.guards.services.recover import lift, recover, rest

__all__ = ["fence", "lift", "recover", "rest", "suspect"]
