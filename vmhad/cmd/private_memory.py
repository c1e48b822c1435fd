# SPDX-License-Identifier: Apache-2.0
"""A process that reads passwords keeps its memory to itself: it leaves no core dump, and nobody but root looks into it.

In the middle of a call a driver's library holds what it sends, password included; a core dump would carry that to
wherever dumps are collected. Rule kept: called before the first secret is read, by every command that reads any.
"""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """For the rest of this process's life, and for those that it forks. Raises OSError where the kernel refuses: who
    goes on then would be no safer than before."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # The limit is not asked where core_pattern is a pipe, as with systemd-coredump.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, *[ctypes.c_ulong(0)] * 4) != 0:
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_DUMPABLE): {os.strerror(ctypes.get_errno())}")
