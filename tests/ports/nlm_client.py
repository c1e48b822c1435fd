# SPDX-License-Identifier: Apache-2.0
"""A client of NFSv3 that locks a file, as a process of its own.

`nlm_client SERVER EXPORT FILE` mounts, says «open» and, for each line that it reads, asks for a lock of the whole file
and says ok, or no and the number that it was refused with.
"""

from __future__ import annotations

import os
import sys

from tests.ports.onc_rpc import Link, Said, opaque, port_of, u32, u64

NFS, MOUNT, NLM = (100003, 3), (100005, 3), (100021, 4)
MNT, LOOKUP, LOCK = 1, 3, 2
# What statd of a host that is up says: an odd number.
STATE = 3


def main() -> None:
    server, export, name = sys.argv[1:4]
    root = Link(server, port_of(server, *MOUNT)).call(*MOUNT, MNT, opaque(export.encode())).good().opaque()
    looked = Link(server, 2049).call(*NFS, LOOKUP, opaque(root) + opaque(name.strip("/").encode()))
    handle = looked.good().opaque()
    locks = Link(server, port_of(server, *NLM))
    print("open", flush=True)
    owner = opaque(f"{os.getpid()}@host".encode())
    lock = opaque(b"host") + opaque(handle) + owner + u32(os.getpid()) + u64(0) + u64(0)
    for _ in sys.stdin:
        try:
            answer = locks.call(*NLM, LOCK, opaque(b"cookie") + u32(0, 1) + lock + u32(0, STATE))
            answer.opaque()
            answer.good()
            print("ok", flush=True)
        except (Said, OSError) as error:
            print("no", error, flush=True)


if __name__ == "__main__":
    main()
