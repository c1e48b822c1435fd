# SPDX-License-Identifier: Apache-2.0
"""One iSCSI session with one target, by libiscsi, that ends when its time is up whatever the target does.

libiscsi is driven by its sockets and callbacks, never by its calls that wait: a target that hangs keeps nobody longer
than the deadline. It never reconnects by itself, as that would be another nexus. Of its structures only the three first
fields of a sense are known here; the rest goes through its calls, which are the same in all its releases.
"""

from __future__ import annotations

import ctypes as C
import functools
import logging
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vmhad.scsi.nexus import Answer, Broken
from vmhad.scsi.scsi_bytes import CHECK_CONDITION, GOOD

LOG = logging.getLogger(__name__)
LIBRARIES = ("libiscsi.so.7", "libiscsi.so.8", "libiscsi.so.9", "libiscsi.so.10", "libiscsi.so.11", "libiscsi.so")
NORMAL_SESSION = 2
NO_LUN = -1
NO_DATA, FROM_TARGET, TO_TARGET = 0, 1, 2
FUNCTION_COMPLETE = 0
CLOSE_S = 0.2
POLL_S = 0.5
# What libiscsi says of a command that got no answer of the target.
NO_STATUS = 0x0F000000
SENSE_BYTES = 64


class NoLibrary(Exception):
    """libiscsi is not installed."""


@dataclass(frozen=True, slots=True)
class Portal:
    """Where a target is found, and who asks. address: an IP address, so that no fence needs a name service."""

    address: str
    target: str
    initiator: str
    user: str = ""
    password: str = field(default="", repr=False)


class _Sense(C.Structure):
    _fields_ = [("kind", C.c_ubyte), ("key", C.c_int), ("ascq", C.c_int), ("rest", C.c_ubyte * SENSE_BYTES)]


class _Data(C.Structure):
    _fields_ = [("size", C.c_size_t), ("data", C.c_char_p)]


_CALLBACK = C.CFUNCTYPE(None, C.c_void_p, C.c_int, C.c_void_p, C.c_void_p)
_CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "iscsi_create_context": (C.c_void_p, (C.c_char_p,)),
    "iscsi_destroy_context": (C.c_int, (C.c_void_p,)),
    "iscsi_set_targetname": (C.c_int, (C.c_void_p, C.c_char_p)),
    "iscsi_set_session_type": (C.c_int, (C.c_void_p, C.c_int)),
    "iscsi_set_noautoreconnect": (None, (C.c_void_p, C.c_int)),
    "iscsi_set_isid_random": (C.c_int, (C.c_void_p, C.c_uint32, C.c_uint32)),
    "iscsi_set_initiator_username_pwd": (C.c_int, (C.c_void_p, C.c_char_p, C.c_char_p)),
    "iscsi_full_connect_async": (C.c_int, (C.c_void_p, C.c_char_p, C.c_int, _CALLBACK, C.c_void_p)),
    "iscsi_logout_async": (C.c_int, (C.c_void_p, _CALLBACK, C.c_void_p)),
    "iscsi_get_fd": (C.c_int, (C.c_void_p,)),
    "iscsi_which_events": (C.c_int, (C.c_void_p,)),
    "iscsi_service": (C.c_int, (C.c_void_p, C.c_int)),
    "iscsi_scsi_command_async": (
        C.c_int, (C.c_void_p, C.c_int, C.c_void_p, _CALLBACK, C.POINTER(_Data), C.c_void_p),
    ),
    "iscsi_task_mgmt_lun_reset_async": (C.c_int, (C.c_void_p, C.c_uint32, _CALLBACK, C.c_void_p)),
    "scsi_create_task": (C.c_void_p, (C.c_int, C.c_char_p, C.c_int, C.c_int)),
    "scsi_task_add_data_in_buffer": (C.c_int, (C.c_void_p, C.c_int, C.c_void_p)),
    "scsi_task_get_status": (C.c_int, (C.c_void_p, C.POINTER(_Sense))),
    "scsi_free_scsi_task": (None, (C.c_void_p,)),
}  # fmt: skip


@functools.cache
def library() -> Any:
    """Raises NoLibrary."""
    for name in LIBRARIES:
        try:
            loaded = C.CDLL(name)
        except OSError:
            continue
        for call, (result, arguments) in _CALLS.items():
            function = getattr(loaded, call)
            function.restype, function.argtypes = result, arguments
        return loaded
    raise NoLibrary("libiscsi is not installed: install libiscsi7")


class Session:
    """For one thread."""

    def __init__(self, portal: Portal, deadline: float, port: int | None = None) -> None:
        """Logs in. deadline: on time.monotonic(), for all that is done. port: 40 bits of the initiator's port; with its
        name and the target they are the nexus, and who logs in with them again ends this session. None: one of chance.
        Raises Broken, NoLibrary."""
        self._iscsi = library()
        self.deadline = deadline
        # One callback for all: one that is made for a call could be freed while it runs.
        self._callback = _CALLBACK(self._came)
        self._waiting: dict[int, Callable[[int, int | None], None]] = {}
        self._begun = 0
        self._answers = False
        # What libiscsi sends from must stay as long.
        self._sent: dict[int, Any] = {}
        self._context = self._iscsi.iscsi_create_context(portal.initiator.encode())
        if not self._context:
            raise Broken("libiscsi takes no initiator of this name")
        try:
            self._iscsi.iscsi_set_targetname(self._context, portal.target.encode())
            self._iscsi.iscsi_set_session_type(self._context, NORMAL_SESSION)
            self._iscsi.iscsi_set_noautoreconnect(self._context, 1)
            if port is not None:
                self._iscsi.iscsi_set_isid_random(self._context, port >> 16, port & 0xFFFF)
            if portal.user:
                self._iscsi.iscsi_set_initiator_username_pwd(
                    self._context, portal.user.encode(), portal.password.encode()
                )
            if self._ask("iscsi_full_connect_async", portal.address.encode(), NO_LUN).status:
                raise Broken("the target let nobody log in")
        except BaseException:
            self._drop()
            raise

    def command(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """wanted: as many bytes as the answer may have. Raises Broken where there is no answer."""
        answer = self.begin(lun, cdb, out, wanted)
        self.pump(lambda: answer.is_there)
        if answer.status >= NO_STATUS:
            raise Broken("the session broke before the answer came")
        return answer

    def begin(self, lun: int, cdb: bytes, out: bytes = b"", wanted: int = 0) -> Answer:
        """Sends a command and does not wait; pump() does."""
        way = TO_TARGET if out else FROM_TARGET if wanted else NO_DATA
        # Bytes that the target did not send must not look like its answer.
        buffer = C.create_string_buffer(b"\xff" * wanted, wanted) if wanted else None
        task = self._iscsi.scsi_create_task(len(cdb), cdb, way, len(out) or wanted)
        if not task:
            raise Broken("libiscsi made no command")
        if buffer is not None:
            self._iscsi.scsi_task_add_data_in_buffer(task, wanted, C.addressof(buffer))
        data = _Data(len(out), out) if out else None
        answer = Answer()

        def came(status: int, _said: int | None) -> None:
            if status == CHECK_CONDITION:
                sense = _Sense()
                self._iscsi.scsi_task_get_status(task, C.byref(sense))
                answer.sense = (sense.key, sense.ascq)
            if buffer is not None and status == GOOD:
                answer.data = buffer.raw
            self._iscsi.scsi_free_scsi_task(task)
            self._sent.pop(number, None)
            answer.status = status

        number = self._expect(came)
        self._sent[number] = data
        reference = C.byref(data) if data is not None else None
        if self._iscsi.iscsi_scsi_command_async(self._context, lun, task, self._callback, reference, number):
            self._waiting.pop(number)
            self._iscsi.scsi_free_scsi_task(task)
            raise Broken("libiscsi did not take a command")
        return answer

    def lun_reset(self, lun: int) -> bool:
        """Ends all commands of all initiators that this LUN has begun. False: the target declined. Raises Broken."""
        said = self._ask("iscsi_task_mgmt_lun_reset_async", lun)
        if said.status >= NO_STATUS:
            raise Broken("the session broke in a LUN RESET")
        return said.status == GOOD and said.data == FUNCTION_COMPLETE.to_bytes(4)

    def pump(self, is_over: Callable[[], bool]) -> None:
        """Sends and hears until it is over. Raises Broken where the time is up or the connection gone."""
        while not is_over():
            self._answers = False
            left_s = self.deadline - time.monotonic()
            if left_s <= 0:
                raise Broken("no answer in time")
            # The connection may be made anew, as a portal can send to another one.
            descriptor = self._iscsi.iscsi_get_fd(self._context)
            if descriptor < 0:
                raise Broken("not connected")
            poll = select.poll()
            poll.register(descriptor, self._iscsi.iscsi_which_events(self._context))
            ready = poll.poll(1000 * min(left_s, POLL_S))
            if self._iscsi.iscsi_service(self._context, ready[0][1] if ready else 0) < 0:
                raise Broken("the connection broke")
        self._answers = True

    def close(self) -> None:
        """Logs out if the target answered the last time. Never raises."""
        if self._context is None:
            return
        self.deadline = time.monotonic() + CLOSE_S
        try:
            if self._answers:
                self._ask("iscsi_logout_async")
        except Broken:
            LOG.debug("a target that does not answer was left without a word")
        finally:
            self._drop()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: str, *arguments: object) -> Answer:
        """A call that is no command; the first four bytes of what is said are in its data."""
        answer = Answer()
        reads = call == "iscsi_task_mgmt_lun_reset_async"

        def came(status: int, said: int | None) -> None:
            # What is said lives no longer than this call.
            if reads and said and status == GOOD:
                answer.data = C.cast(said, C.POINTER(C.c_uint32))[0].to_bytes(4)
            answer.status = status

        number = self._expect(came)
        if getattr(self._iscsi, call)(self._context, *arguments, self._callback, number):
            self._waiting.pop(number)
            raise Broken("libiscsi did not begin")
        self.pump(lambda: answer.is_there)
        return answer

    def _expect(self, came: Callable[[int, int | None], None]) -> int:
        self._begun += 1
        self._waiting[self._begun] = came
        return self._begun

    def _came(self, _context: int, status: int, said: int | None, number: int | None) -> None:
        """A login is told of twice: when it is done, and when its connection ends."""
        came = self._waiting.pop(number or 0, None)
        if came is not None:
            came(status, said)

    def _drop(self) -> None:
        """Ends the connection at once; what waits is told that it was cancelled."""
        context, self._context = self._context, None
        if context is not None:
            self._iscsi.iscsi_destroy_context(context)
