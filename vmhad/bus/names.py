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


# How many orders wait for an agent that does not take them; another one is refused by the broker.
ORDERS_WAITING_MAX = 32
# How far apart the clocks of an engine and a host may be for an order to count.
CLOCKS_APART_S = 5.0
# An order is never good for longer, whatever it says of itself.
ORDER_LASTS_MAX_S = 30.0


def topic(segment: str) -> str:
    """Where the agents of a segment's hosts speak. A segment's name holds no wildcard (conf/segments_file.py)."""
    return f"beat.{segment}"


def order_topic(host: str) -> str:
    """Where the agent of a host listens for orders. A host's name holds no wildcard either."""
    return f"order.{host}"
