# SPDX-License-Identifier: Apache-2.0
"""One look at one TCP port, or at one HTTP path there: once, within a time limit for all of it, with nothing left open.

An answer is read no further than its first line, however much more would come and however slowly it comes. Nothing is
followed, resolved, proxied or tried again, and nothing of what was answered is passed on but the status.
"""

from __future__ import annotations

import re
import socket
import time

from vmhad.kernel.gate import Gate, Kind, Ready, spoken

STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
LINE_BYTES_MAX = 1024
WELL = range(200, 400)


def probe(address: str, gate: Gate, limit_s: float) -> tuple[Ready, str]:
    """Never raises. address: of IPv4 or IPv6, no name."""
    until, place = time.monotonic() + limit_s, spoken(address, gate.port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(limit_s)
            link.connect((address, gate.port))
            if gate.kind is Kind.TCP:
                return Ready.READY, f"{place} accepts connections"
            return _http(link, place, gate, until)
    except TimeoutError:
        return Ready.UNKNOWN, f"{place} does not answer"
    except ConnectionRefusedError:
        return Ready.NOT_READY, f"{place} refuses connections"
    except (ConnectionResetError, BrokenPipeError):
        return Ready.NOT_READY, f"{place} breaks off"
    except OSError as error:
        return Ready.UNKNOWN, f"{place} cannot be reached: {error.strerror or type(error).__name__}"


def _http(link: socket.socket, place: str, gate: Gate, until: float) -> tuple[Ready, str]:
    """Raises OSError, TimeoutError where the time is over."""
    where = f"{place}{gate.path}"
    request = f"GET {gate.path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: vmhad\r\nConnection: close\r\n\r\n"
    link.sendall(request.encode("ascii"))
    line = b""
    while b"\n" not in line and len(line) < LINE_BYTES_MAX:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        link.settimeout(left_s)
        some = link.recv(LINE_BYTES_MAX)
        if not some:
            break
        line += some
    if not line:
        return Ready.NOT_READY, f"{where} is closed without an answer"
    found = STATUS.match(line)
    if found is None:
        return Ready.UNKNOWN, f"{where} answers, and not in HTTP"
    status = int(found[1])
    return (Ready.READY if status in WELL else Ready.NOT_READY), f"{where} answers {status}"
