# SPDX-License-Identifier: Apache-2.0
"""Cuts hosts off what one NFS-Ganesha exports, through vmhad-ganesha beside it.

The rules kept: CUT is what Ganesha itself shows, of every export of this storage: that it refuses each address of the
host before it could grant it anything, and that it has no request, open file or lock of the host left, so that nothing
that it took before can still be written. And the export's file says the same, or a restart would undo it.

Calls go over one ssh connection to the server, where each is a process of its own (ganesha_server.py): whatever hangs
there, no caller does, and no other call.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vmhad.drivers.storage.order_line import OrderLine, Silent
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

_KEYS = {"exports", "ssh", "port", "identity_file", "known_hosts_file", "dbus_address", "files"}
_SSH_ONLY = {"port", "identity_file", "known_hosts_file"}
_LOCAL_ONLY = {"dbus_address", "files"}
# Of a call's time the part that the server's end gets, so that it says itself that it was too long.
_SERVER_SHARE = 0.8
_PROGRAM = "vmhad.drivers.storage.ganesha_server"


class NfsGanesha:
    """ports.Storage. Calls may be made from several threads."""

    def __init__(
        self, name: str, settings: Mapping[str, object], clients: Mapping[str, tuple[str, ...]], timeout_s: float
    ) -> None:
        """Raises ValueError for settings that are none; reaches the server only when first asked."""
        self._name = name
        self._exports = _exports(settings)
        self._line = OrderLine(_command(settings, timeout_s))
        self._clients = {host: tuple(_address(host, one) for one in known) for host, known in clients.items()}
        _of_one_host_each(self._clients)
        self._timeout_s = timeout_s

    def read(self, host: str) -> tuple[Access, str]:
        try:
            answer = self._ask("read", host, time.monotonic() + self._timeout_s)
            return Access(answer["access"]), f"{self._name}: {answer['words']}"
        except (Refused, Unanswered) as error:
            return Access.UNKNOWN, str(error)
        except (KeyError, ValueError):
            return Access.UNKNOWN, f"{self._name}: its server answered garbage"

    def cut(self, host: str) -> None:
        self._act("cut", host, time.monotonic() + self._timeout_s)

    def restore(self, host: str) -> None:
        """Of the cut that stands now: should the order be carried out late, it takes no newer one back."""
        until = time.monotonic() + self._timeout_s
        cuts = self._ask("cuts", host, until).get("cuts")
        self._act("restore", host, until, cuts=cuts)

    def close(self) -> None:
        """A later call opens it again."""
        self._line.close()

    def _act(self, act: str, host: str, until: float, **more: object) -> None:
        if self._ask(act, host, until, **more).get("done") != act:
            raise Unanswered(f"{self._name}: its server answered garbage")

    def _ask(self, act: str, host: str, until: float, **more: object) -> Mapping[str, Any]:
        addresses = self._clients.get(host)
        if not addresses:
            raise Refused(f"{self._name}: no address is known that {host} has there")
        limit_s = max(until - time.monotonic(), 0.0)
        order = {"act": act, "exports": self._exports, "addresses": addresses, "limit_s": limit_s * _SERVER_SHARE}
        try:
            answer = self._line.ask({**order, **more}, limit_s)
        except Silent as error:
            raise Unanswered(f"{self._name}: {error}") from None
        if "refused" in answer:
            raise Refused(f"{self._name}: {answer['refused']}")
        if "failed" in answer:
            raise Unanswered(f"{self._name}: {answer['failed']}")
        return answer


def _exports(settings: Mapping[str, object]) -> tuple[int, ...]:
    unknown = sorted(set(settings) - _KEYS)
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting of nfs_ganesha")
    exports = settings.get("exports")
    numbers = exports if isinstance(exports, list | tuple) else ()
    if not numbers or any(type(one) is not int or not 0 < one < 65536 for one in numbers):
        raise ValueError("exports has to be a list of Export_Ids, each between 1 and 65535")
    return tuple(sorted(set(numbers)))


def _address(host: str, text: str) -> str:
    try:
        read = ipaddress.ip_address(text)
        if read.version == 6 and (read.ipv4_mapped or read.scope_id):
            raise ValueError
        return str(read)
    except ValueError:
        raise ValueError(f"clients of {host}: {text} is no IP address") from None


def _of_one_host_each(clients: Mapping[str, tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for host, addresses in sorted(clients.items()):
        for address in addresses:
            if owner.setdefault(address, host) != host:
                raise ValueError(f"clients of {host}: {address} is {owner[address]}'s, who would be cut off with it")


def _command(settings: Mapping[str, object], timeout_s: float) -> tuple[str, ...]:
    """What is started for a call: ssh, or, without one, vmhad-ganesha on this host."""
    for key in sorted(set(settings) - {"exports", "port"}):
        if not isinstance(settings[key], str) or not settings[key]:
            raise ValueError(f"{key} has to be a text")
    odd = sorted(set(settings) & (_LOCAL_ONLY if "ssh" in settings else _SSH_ONLY))
    if odd:
        place = "where vmhad-ganesha is installed, not here" if "ssh" in settings else "beside ssh, which is not set"
        raise ValueError(f"{odd[0]} belongs {place}")
    if "ssh" in settings:
        return _ssh(settings, timeout_s)
    if "{id}" not in str(settings.get("files", "")):
        raise ValueError("files has to name the files of exports, with {id} for an export's number")
    command = [sys.executable, "-m", _PROGRAM, "--files", str(settings["files"])]
    return (*command, *_given("--dbus-address", settings.get("dbus_address")))


def _ssh(settings: Mapping[str, object], timeout_s: float) -> tuple[str, ...]:
    port = settings.get("port", 22)
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError("port has to be a number between 1 and 65535")
    target = str(settings["ssh"])
    if target.startswith("-"):
        raise ValueError("ssh has to be user@server")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(max(1, int(timeout_s))),
        "ControlPath": "none",
        "ServerAliveInterval": "2",
        "ServerAliveCountMax": "2",
        "ForwardAgent": "no",
    }
    if "known_hosts_file" in settings:
        options["UserKnownHostsFile"] = str(settings["known_hosts_file"])
    if "identity_file" in settings:
        options |= {"IdentityFile": str(settings["identity_file"]), "IdentitiesOnly": "yes"}
    words: Sequence[str] = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    # The command is a word of its key's line on the server («command=»), which wins over this one.
    return ("ssh", "-T", "-p", str(port), *words, "--", target, "vmhad-ganesha")


def _given(option: str, value: object) -> tuple[str, ...]:
    return () if value is None else (option, str(value))
