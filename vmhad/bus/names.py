# SPDX-License-Identifier: Apache-2.0
"""What things on the message bus are called; both ends read it here."""

from __future__ import annotations

EXCHANGE = "vmhad"
# As oslo.messaging declares its exchanges, so that calls to the agents can live on the same one.
EXCHANGE_AS_DECLARED = {"exchange": EXCHANGE, "type": "topic", "durable": False, "auto_delete": False}
# A beat that nobody took for so long is dropped by the broker. It bounds how late a beat can be that is heard first.
EXPIRES_S = 3.0
# How often either end shows the broker, and is shown by it, that it lives.
HEARTBEAT_S = 5


def topic(segment: str) -> str:
    """Where the agents of a segment's hosts speak. A segment's name holds no wildcard (conf/segments_file.py)."""
    return f"beat.{segment}"
