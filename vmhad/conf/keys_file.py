# SPDX-License-Identifier: Apache-2.0
"""The files of keys: the engines' master keys, the current one first, and one host's own key.

Both have mode 0600 or less, and no complaint shows what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmhad.conf.settings import AgentKey
from vmhad.conf.yaml_file import Field, parse, read_secret_text

KEYS_OPTION = "[agents] keys_file"
KEY_OPTION = "[agent] key_file"
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
KEY = re.compile(r"[0-9a-f]{64}")


def read_master_keys(path: str, what: str = KEYS_OPTION) -> Mapping[str, bytes]:
    """Key id -> master key, the current one first. Raises ConfigError."""
    fields = Field(path, "", parse(read_secret_text(path, what), path, what)).mapping(["keys"])
    keys: dict[str, bytes] = {}
    for entry in fields["keys"].items():
        parts = entry.mapping(["id", "key"])
        key_id = _id(parts["id"])
        if key_id in keys:
            raise parts["id"].wrong(f"repeats the id {key_id!r}")
        keys[key_id] = _key(parts["key"])
    return keys


def read_agent_key(path: str, what: str = KEY_OPTION) -> AgentKey:
    """Raises ConfigError."""
    fields = Field(path, "", parse(read_secret_text(path, what), path, what)).mapping(["host", "id", "key"])
    return AgentKey(fields["host"].text(), _id(fields["id"]), _key(fields["key"]))


def master_keys_text(keys: Mapping[str, bytes]) -> str:
    entries = "".join(f'- id: "{key_id}"\n  key: "{key.hex()}"\n' for key_id, key in keys.items())
    return "# The master keys of vmhad's agents, the current one first. For engines only.\nkeys:\n" + entries


def agent_key_text(key: AgentKey) -> str:
    head = "# The key of one host. For the agent of this host only.\n"
    return head + f'host: "{key.host}"\nid: "{key.id}"\nkey: "{key.key.hex()}"\n'


def _id(field: Field) -> str:
    text = field.text()
    if not KEY_ID.fullmatch(text):
        raise field.wrong("may have at most 32 letters, digits, '.', '_' and '-'")
    return text


def _key(field: Field) -> bytes:
    if not isinstance(field.value, str) or not KEY.fullmatch(field.value):
        raise field.wrong("must be 64 lower-case hex digits in quotes")
    return bytes.fromhex(field.value)
