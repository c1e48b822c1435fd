# SPDX-License-Identifier: Apache-2.0
"""What every end does with a connection to a broker: have the exchange of the beats, say why it was lost, let it go."""

from __future__ import annotations

import logging

import amqp
from amqp.exceptions import AMQPError, PreconditionFailed

from vmhad.bus.names import EXCHANGE, EXCHANGE_AS_DECLARED

LOG = logging.getLogger(__name__)


def declare_exchange(connection: amqp.Connection) -> None:
    """On a channel that may break: one that exists otherwise, durable say, serves as well."""
    try:
        connection.channel().exchange_declare(**EXCHANGE_AS_DECLARED)
    except PreconditionFailed:
        LOG.info("The exchange %s exists with other properties; it is used as it is.", EXCHANGE)


def let_go(connection: amqp.Connection) -> None:
    """Whatever state it is in, and without a farewell: the broker may be away."""
    try:
        connection.collect()
    except Exception as error:
        LOG.debug("A connection ended untidily (%s).", type(error).__name__)


def why(error: Exception) -> str:
    """In words that cannot hold a password."""
    reason = getattr(error, "reply_text", "") if isinstance(error, AMQPError) else getattr(error, "strerror", "")
    return f"{type(error).__name__} {reason or ''}".strip()
