# SPDX-License-Identifier: Apache-2.0
"""What is seen of a live migration: whether the server has arrived, is on its way, or stays where it was."""

from __future__ import annotations

from vmhad.guards.hosts.move import SPOILT
from vmhad.kernel.cloud import BROKEN, OVER, Migration, Server, ServerState
from vmhad.kernel.step import Answer, Step

MIGRATING = "migrating"


def probe_migrated(step: Step, level: tuple[Server | None, tuple[Migration, ...]]) -> tuple[Answer, str, str]:
    """Done = it is on another host and has no task any more, whoever moved it. The reading: «id status».

    A live migration is never asked for beside another one, nor while its user, or Nova, is busy with the server.
    """
    server, migrations = level
    if server is None:
        return Answer.SO, "absent", "gone: deleted"
    if server.host != step.args["source"]:
        if server.task_state:
            return Answer.NOT_YET, server.task_state, f"arriving on {server.host}"
        return Answer.SO, server.state.value, f"on {server.host}"
    known = step.args.get("known", "").split(",")
    ours = [one for one in migrations if one.source == step.args["source"] and one.id not in known]
    newest = ours[0] if ours else None
    if newest is not None and newest.status not in OVER:
        return Answer.NOT_YET, f"{newest.id} {newest.status}", f"moving to {newest.target}: {newest.status}"
    if newest is not None and newest.status in BROKEN and not server.task_state:
        why = server.fault or f"Nova's live migration ended in {newest.status}"
        spoilt = server.state is ServerState.ERROR
        return Answer.FAILED, SPOILT if spoilt else f"{newest.id} {newest.status}", why
    if newest is not None:
        return Answer.NOT_YET, f"{newest.id} {newest.status}", f"its live migration is over: {newest.status}"
    if server.task_state:
        return Answer.NOT_YET, server.task_state, f"busy: {server.task_state}"
    return Answer.NOT_SO, "", "no live migration of it is under way"
