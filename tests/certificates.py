# SPDX-License-Identifier: Apache-2.0
"""Certificates as the shipped core wrote them in a story, for tests to look at, or to tamper with."""

from __future__ import annotations

import copy
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from vmhad.sim.directives import Stage
from vmhad.sim.rules_of_certificates import Chains, certificates
from vmhad.sim.story import directives_of, parse
from vmhad.sim.world import World

STORIES = Path(__file__).parent / "stories"


@cache
def played(story: str) -> World:
    stage = Stage()
    for line in directives_of(parse((STORIES / f"{story}.txt").read_text())):
        stage.perform(line)
    return stage.world


def chains(story: str) -> Chains:
    """A copy of its own for each test."""
    return copy.deepcopy(certificates(played(story)))


def chain(story: str, server: str = "web-1") -> list[dict[str, Any]]:
    """Of the one incident that moved this VM."""
    (mine,) = [one for (_, vm), one in chains(story).items() if vm == server]
    return mine


def sealed(certificate: dict[str, Any]) -> dict[str, Any]:
    """Its digest made to fit again, as one who tampers with care would do it."""
    body = {key: value for key, value in certificate.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**body, "digest": hashlib.sha256(text.encode()).hexdigest()}
