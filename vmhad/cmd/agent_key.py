# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage agent-key: the engines' master keys, and from them each host's own key.

A key goes into a file of mode 0600 and nowhere else. To change the master key: «new», restart the engines, give every
host a key derived anew and restart its agent, then take the old key out of the file and restart the engines again.
"""

from __future__ import annotations

import argparse
import os
import secrets
import stat
from datetime import UTC, datetime
from pathlib import Path

from vmhad.bus.signature import KEY_BYTES, derive
from vmhad.conf.keys_file import agent_key_text, master_keys_text, read_master_keys
from vmhad.conf.settings import AgentKey, ConfigError, Settings


def add_agent_key(nouns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the noun to vmhad-manage."""
    verbs = nouns.add_parser("agent-key", help="what the agents sign with").add_subparsers(required=True)
    new = verbs.add_parser("new", help="puts a new master key before those in [agents] keys_file; begins the file")
    new.add_argument("--id", default="", help="its name (default: the time, in UTC)")
    new.set_defaults(keys=new_master)
    one = verbs.add_parser("derive", help="writes the key of one host, for [agent] key_file there")
    one.add_argument("host", help="as Nova calls it")
    one.add_argument("--output", metavar="FILE", required=True, help="a new file; it gets mode 0600")
    one.set_defaults(keys=derive_for_host)


def new_master(settings: Settings, told: argparse.Namespace) -> int:
    """Raises ConfigError."""
    path = Path(settings.agents.keys_file)
    known = dict(read_master_keys(str(path))) if path.exists() else {}
    key_id = told.id or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if key_id in known:
        raise ConfigError(f"--id: {path} has a key {key_id!r} already.")
    _check_id(key_id)
    text = master_keys_text({key_id: secrets.token_bytes(KEY_BYTES)} | known)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    _write_new(beside, text, f"[agents] keys_file: {beside}")
    if path.exists():
        _keep_owner(path, beside)
    beside.replace(path)
    print(f"{path} has {len(known) + 1} keys, the current one is {key_id!r}")
    return 0


def derive_for_host(settings: Settings, told: argparse.Namespace) -> int:
    """Raises ConfigError."""
    known = {host for segment in settings.segments for host in segment.names}
    if told.host not in known:
        raise ConfigError(f"no segment has a host {told.host!r}; there are: {', '.join(sorted(known))}.")
    key_id, master = next(iter(read_master_keys(settings.agents.keys_file).items()))
    key = derive(key_id, master, told.host)
    _write_new(Path(told.output), agent_key_text(AgentKey(key.host, key.id, key.key)), f"--output: {told.output}")
    print(f"{told.output} is the key of {told.host}, derived from {key_id!r}")
    return 0


def _check_id(key_id: str) -> None:
    try:
        derive(key_id, bytes(KEY_BYTES), "any")
    except ValueError as error:
        raise ConfigError(f"--id: {error}.") from None


def _write_new(path: Path, text: str, what: str) -> None:
    """Never through a file or a link that is there: its mode and its owner would be somebody else's choice."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigError(f"{what} exists already.") from None
    except OSError as error:
        raise ConfigError(f"{what} cannot be written: {error.strerror}.") from None


def _keep_owner(old: Path, new: Path) -> None:
    """An engine that runs as a user of its own must still be able to read its file."""
    owner = old.stat()
    try:
        os.chown(new, owner.st_uid, owner.st_gid)
    except OSError as error:
        new.unlink()
        raise ConfigError(f"[agents] keys_file: {old} cannot be replaced: {error.strerror}.") from None
