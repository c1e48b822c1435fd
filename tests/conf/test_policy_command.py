# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage policy, as an operator types it: what it prints, what it leaves in the journal, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from keystoneauth1.noauth import NoAuth

from tests.ports.stand_in import Answer, running
from vmhad.cmd import manage, policy
from vmhad.conf.settings import ConfigError
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.journal.change import Contended
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.kernel.vm_policy import VmPolicies
from vmhad.ports import Refused
from vmhad.sim.store import MemoryStore

SETTINGS: Any = SimpleNamespace(segments=(Segment("east", (Host("h1"),)),), policies={"east": Policy()})
GOLD = {"name": "gold", "match": {"tag": "gold"}, "settings": {"priority": 5, "protect": True}}
REST = {"name": "rest", "match": "all", "settings": {"protect": "flagged", "priority": 1}}
ANEW = GOLD | {"name": "new", "settings": {"priority": 2}}
Run = Callable[..., str]


def row(key: str, name: str, host: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "name": name, "OS-EXT-SRV-ATTR:host": host, "OS-EXT-STS:vm_state": "active", **more}


SERVERS = [
    row("1", "db-1", "h1", tags=["gold"], tenant_id="p1"),
    row("2", "web-1", "h1", metadata={"HA_Enabled": "True"}),
    row("3", "web-1", "h9"),
    row("4", "old", "h1", metadata={"vmhad": "false"}),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """A Nova with some servers, and what it was asked. Of Keystone's projects it tells nothing."""

    def answer(method: str, path: str) -> Answer:
        where, told = urlsplit(path).path.removeprefix("/v2.1"), parse_qs(urlsplit(path).query)
        if where == "/servers/detail":
            named = told.get("name", [""])[0]
            return 200, json.dumps({"servers": [one for one in SERVERS if named in one["name"]]}).encode()
        if where.startswith("/servers/") and (found := [one for one in SERVERS if where.endswith(f"/{one['id']}")]):
            return 200, json.dumps({"server": found[0]}).encode()
        if where == "/projects":
            return 403, b'{"error": {"code": 403, "message": "You are not authorized."}}'
        return 404, b'{"itemNotFound": {"code": 404, "message": "it could not be found"}}'

    with running() as server:
        server.answer = answer
        monkeypatch.setattr(policy, "open_compute", lambda _: NovaCompute(NoAuth(endpoint=server.url), timeout_s=2.0))
        yield server.asked


@pytest.fixture
def shelf() -> PolicyShelf:
    return PolicyShelf(MemoryStore())


@pytest.fixture
def run(shelf: PolicyShelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*words: str, of: object = None) -> str:
        """of: what stands in the file FILE."""
        (tmp_path / "FILE").write_text(yaml.safe_dump(of))
        told = manage._arguments(["policy", *(str(tmp_path / one) if one == "FILE" else one for one in words)])
        capsys.readouterr()
        assert told.run(shelf, SETTINGS, told) == 0
        return capsys.readouterr().out

    return ran


def test_what_is_created_is_listed_the_most_specific_first_and_shown(run: Run) -> None:
    assert run("create", "-f", "FILE", of=REST) == "policy rest is there; the policies are at version 1\n"
    assert run("create", "-f", "FILE", of=GOLD) == "policy gold is there; the policies are at version 2\n"
    first, *lines = run("list").splitlines()
    assert first == "version 2, 2 policies"
    assert [one.split() for one in lines] == [
        ["gold", "tag", "gold", "protect=yes,", "priority=5"],
        ["rest", "all", "protect=flagged,", "priority=1"],
    ]
    assert yaml.safe_load(run("show", "gold")) == GOLD


def test_one_is_changed_and_taken_away(run: Run, shelf: PolicyShelf) -> None:
    run("load", "FILE", of={"policies": [GOLD, REST]})
    run("set", "gold", "priority=7", "protect=")
    assert yaml.safe_load(run("show", "gold"))["settings"] == {"priority": 7}
    run("set", "gold", "--version", "2", "priority=8")
    both = GOLD | {"match": {"tag": ["gold", "silver"]}}
    run("create", "-f", "FILE", "--replace", of=both)
    assert yaml.safe_load(run("show", "gold")) == both
    assert run("delete", "rest") == "policy rest is gone; the policies are at version 5\n"
    assert [one.name for one in shelf.newest().policies] == ["gold"]


def test_what_is_dumped_is_loaded_over_its_own_version_only(run: Run, shelf: PolicyShelf) -> None:
    run("load", "FILE", of={"policies": [GOLD, REST]})
    dumped = yaml.safe_load(run("dump"))
    assert dumped == {"version": 1, "policies": [GOLD, REST]}
    run("set", "gold", "priority=7")
    with pytest.raises(Contended, match="at version 2 now, and this was made from version 1"):
        run("load", "FILE", of=dumped)
    assert run("load", "FILE", "--version", "2", of=dumped).startswith("2 policies are there in place of all before")
    assert shelf.newest().version == 3 and yaml.safe_load(run("dump"))["policies"] == [GOLD, REST]


@pytest.mark.parametrize(
    ("words", "of"),
    [
        (("create", "-f", "FILE", "--version", "4"), GOLD | {"name": "new"}),
        (("set", "gold", "priority=9", "--version", "0"), None),
        (("delete", "gold", "--version", "2"), None),
        (("load", "FILE", "--version", "2"), {"policies": []}),
    ],
)
def test_a_change_names_the_version_that_was_looked_at(run: Run, words: tuple[str, ...], of: object) -> None:
    run("load", "FILE", of={"policies": [GOLD, REST]})
    with pytest.raises(Contended, match="look again"):
        run(*words, of=of)


@pytest.mark.parametrize(
    ("words", "of", "complaint"),
    [
        (("create", "-f", "FILE"), GOLD, "there is a policy 'gold' already"),
        (("create", "-f", "FILE"), ANEW | {"match": "all"}, "'new' and 'rest' are a tie: both match all, one VM"),
        (("create", "-f", "FILE"), {"policies": [GOLD]}, "unknown field 'policies'; known are match, name, settings"),
        (("set", "x", "priority=1"), None, "there is no policy 'x'; there are: gold, rest"),
        (("create", "-f", "FILE", "--replace"), GOLD | {"name": "x"}, "there is no policy 'x'"),
        (("set", "gold", "prority="), None, "there is no setting 'prority'"),
        (("delete", "x"), None, "there is no policy 'x'"),
        (("show", "x"), None, "there is no policy 'x'"),
        (("load", "FILE"), {"policies": [GOLD, ANEW]}, "'gold' and 'new' are a tie: both match by tag, one VM"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    run: Run, shelf: PolicyShelf, words: tuple[str, ...], of: object, complaint: str
) -> None:
    run("load", "FILE", of={"policies": [GOLD, REST]})
    for more in ((), ("--dry-run",) if words[0] != "show" else ()):
        with pytest.raises((ConfigError, Refused), match=complaint):
            run(*words, *more, of=of)
    assert shelf.newest().version == 1


def test_a_dry_run_tells_for_whom_something_would_change_and_changes_nothing(
    run: Run, shelf: PolicyShelf, asked: list[tuple[str, str]]
) -> None:
    run("load", "FILE", of={"policies": [GOLD]})
    assert not asked, "policies are changed without Nova"
    idle = {"name": "idle", "match": {"project": "shop"}, "settings": {"priority": 3}}
    told = run("load", "FILE", "--dry-run", of={"policies": [REST, idle]}).splitlines()
    assert [one.split() for one in told[:-2]] == [
        ["db-1", "1", "protect", "yes", "->", "no,", "priority", "5", "->", "1"],
        ["web-1", "2", "protect", "-", "->", "yes"],
        ["web-1", "3", "protect", "-", "->", "no,", "priority", "0", "->", "1"],
        ["old", "4", "protect", "-", "->", "no,", "priority", "0", "->", "1"],
    ]
    assert told[-2:] == ["policy idle matches none of 4 VMs: project shop", "4 VMs would change; nothing was changed"]
    told = run("delete", "gold", "--dry-run").splitlines()
    assert len(told) == 2 and "protect yes -> -" in told[0]
    assert shelf.newest().version == 1


def test_it_is_explained_what_decides_of_one_vm(run: Run, asked: list[tuple[str, str]]) -> None:
    run("load", "FILE", of={"policies": [GOLD, REST]})
    first, *lines = run("explain", "db-1").splitlines()
    assert first == "VM db-1 (1) on h1, segment east; policies of version 1"
    assert lines[:2] == ["  matched by gold: tag gold", "  matched by rest: all"]
    told = {one.split()[0]: " ".join(one.split()[1:]) for one in lines[2:]}
    assert told["priority"] == "5 policy 'gold' matches it by tag gold; over 'rest' by all, less specific, which says 1"
    assert told["on_crash"] == "restart no policy says it: as its segment has it"
    assert "protect              no                     its owner wrote vmhad=false on it" in run("explain", "4")
    assert "in no segment: nothing protects it" in run("explain", "3")


def test_whom_it_explains_must_be_plain(run: Run, asked: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match="2 VMs are named 'web-1'; name one by its id"):
        run("explain", "web-1")
    with pytest.raises(ConfigError, match="0 VMs are named 'web'"):
        run("explain", "web")


def test_what_keystone_will_not_tell_is_told(run: Run, asked: list[tuple[str, str]]) -> None:
    run("load", "FILE", of={"policies": [GOLD | {"match": {"domain": "d1"}}]})
    told = "not known, so that no policy matches by it: domain (You are not authorized.)"
    assert told in run("explain", "db-1").splitlines()
    assert told in run("delete", "gold", "--dry-run").splitlines()


def test_an_empty_set_is_a_set(run: Run, shelf: PolicyShelf) -> None:
    run("load", "FILE", of={"policies": [GOLD]})
    run("load", "FILE", of={"policies": []})
    assert shelf.newest() == VmPolicies(2)
    assert run("list") == "version 2, 0 policies\n"
