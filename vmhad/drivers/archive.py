# SPDX-License-Identifier: Apache-2.0
"""A directory of certificates, one file each: a file is there whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path


class Archive:
    """put raises OSError; what it returned from is on the disk."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def put(self, name: str, raw: bytes) -> None:
        """Under the same name the same content: a certificate is never changed."""
        path = self._directory / name
        beside = path.with_name(f".{name}.{os.getpid()}")
        try:
            with open(beside, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        held = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)
