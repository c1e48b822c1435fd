# SPDX-License-Identifier: Apache-2.0
"""Reads guests' disks out of Ceph for somebody who cannot: asked by lines, it answers in bytes.

    names            one JSON line
    read NAME OFFSET LENGTH      "<length of the answer>\\n" and the bytes; a disk that is not there is empty
"""
import json
import sys

import rados
import rbd

SUFFIX = "_disk"


class Disks:
    """Images stay open, read-only, so that a look takes a millisecond."""

    def __init__(self, settings_file):
        self.cluster = rados.Rados(conffile=settings_file)
        self.cluster.connect()
        self.pool = self.cluster.open_ioctx("rbd")
        self.images = {}

    def names(self):
        there = {name.removesuffix(SUFFIX) for name in rbd.RBD().list(self.pool) if name.endswith(SUFFIX)}
        for gone in set(self.images) - there:
            self.images.pop(gone).close()
        return sorted(there)

    def read(self, name, offset, length):
        try:
            if name not in self.images:
                self.images[name] = rbd.Image(self.pool, name + SUFFIX, read_only=True)
            return self.images[name].read(offset, length)
        except rbd.Error:
            return b""


def main():
    disks = Disks(sys.argv[1])
    for line in sys.stdin:
        words = line.split()
        if words[0] == "names":
            answer = json.dumps(disks.names()).encode() + b"\n"
        else:
            data = disks.read(words[1], int(words[2]), int(words[3]))
            answer = b"%d\n" % len(data) + data
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
