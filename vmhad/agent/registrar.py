# SPDX-License-Identifier: Apache-2.0
"""One path's registration with a LUN: made once, and never again where a cut of this host may have taken it away.

Keys are read, the path is registered, keys are read again; where a cut of this host stands among them then, the path
unregisters itself. Why no order of that and of a cut (drivers/storage/scsi_lun.py) ends with a host that is cut off and
registered: a cut registers its mark «begun» before it takes the host's key away, resets the LUN after that, and looks
for the key at last, before its mark says «cut».

* The second look sees no mark: then the cut began after it, and so after the registration, which it takes away.
* The second look sees one: the path unregisters itself, by a REGISTER that names the key it must still have. It changes
  nothing where the cut was faster.
* The first look sees one: nothing is sent.
* A registration that is late: sent after the cut's last look for the key, by an agent or a host that hung since its
  first look. No target refuses it, but this nexus has to be told of the reset before: the command is not begun, and the
  agent looks again. That holds as long as no other command of this host by this path was told of it instead. If one
  was, the LUN reads OPEN from the registration to the second look, and is taken back by it.
* The agent ends between registration and second look: that it began is kept for this boot before it is sent, and the
  next agent withdraws it if a mark stands at its first look.

What must not be: the key missing without a mark, and registered again. Somebody took it away, or the target lost all.
So a key that was there in this boot, or would have been, comes back by «given back» alone, and by one that came after.
"""

from __future__ import annotations

from vmhad.agent.lun_memory import LunMemory
from vmhad.scsi.marks import Marks
from vmhad.scsi.nexus import Declined, Nexus, Overtaken, Stirred

# What happens on a LUN in the middle of a look is over soon.
LOOKS_MAX = 5
CUT = "a cut of this host stands there: it is not registered until it is given back"
LOST = "its key was there and was taken away without a mark of vmhad: it is not registered again in this boot"
FOREIGN = "this path is registered with another key"
RESTLESS = "it is not registered: something happens on it again and again"


class Registrar:
    """Of one path. lun, path: as the memory calls them."""

    def __init__(self, key: int, marks: Marks, memory: LunMemory, lun: str, path: str) -> None:
        self._key = key
        self._marks = marks
        self._memory = memory
        self._lun = lun
        self._path = path
        # Of the memory, when this path was registered last.
        self._turn = -1
        self._persists: bool | None = None

    def settle(self, nexus: Nexus) -> str:
        """'' where this path is registered now, else why it is not. Raises Broken, Declined, Overtaken, Garbled,
        OSError: then it is asked again later, and nothing more was done than is remembered."""
        for _ in range(LOOKS_MAX):
            try:
                return self._settled(nexus)
            except Stirred:
                continue
        raise Overtaken(RESTLESS)

    def _settled(self, nexus: Nexus) -> str:
        if self._persists is None:
            # Asked before the keys are: between them and a registration it would be told of a reset in its place.
            self._persists = nexus.can_persist()
        # What other paths register after this is no reason to miss it in what is read now.
        known = self._memory.of(self._lun)
        keys = frozenset(nexus.keys().keys)
        is_there = self._key in keys
        if self._marks.forbid & keys:
            return self._cut(nexus, is_there, self._persists)
        opened = self._marks.opened in keys
        if is_there:
            self._memory.no_cut_stood(self._lun)
            if self._turn == known.turn:
                return ""
        elif known.registered and (known.opened or not opened):
            self._memory.gone(self._lun, known.opened)
            return LOST
        elif known.registered:
            # It was taken away, and given back, since anybody looked: the other paths lost theirs as well.
            self._memory.gone(self._lun, False)
        return self._register(nexus, opened, self._persists)

    def _register(self, nexus: Nexus, opened: bool, persists: bool) -> str:
        try:
            self._memory.begin(self._lun, self._path)
        except OSError as error:
            return f"it is not registered, as that cannot be remembered: {error.strerror}"
        try:
            if not nexus.register_new(self._key, persists) and not nexus.confirm(self._key, persists):
                self._memory.was_not_begun(self._lun, self._path)
                return FOREIGN
        except (Stirred, Declined):
            self._memory.was_not_begun(self._lun, self._path)
            raise
        keys = frozenset(nexus.keys().keys)
        if self._marks.forbid & keys:
            return self._cut(nexus, True, persists)
        self._turn = self._memory.done(self._lun, self._path, opened)
        if self._key not in keys:
            raise Stirred("its key was taken away at once")
        return ""

    def _cut(self, nexus: Nexus, is_there: bool, persists: bool) -> str:
        """Only what may have been registered after the cut began is withdrawn; the rest is for the cut to take."""
        known = self._memory.of(self._lun)
        if is_there and (known.left or self._path in known.begun):
            nexus.unregister(self._key, persists)
        self._memory.was_not_begun(self._lun, self._path)
        # The other paths withdraw theirs, each by its own look.
        self._memory.gone(self._lun, False, known.left and is_there)
        return CUT
