# SPDX-License-Identifier: Apache-2.0
"""This very Python for a guest's initramfs: it lies there where it lies here, with the modules that one program loads
and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules_of(program: Path, more: Sequence[str] = ()) -> list[Path]:
    """The files of all that it imports. more: modules that Python itself comes to want there."""
    listing = (
        f"import {', '.join(('sys', 'runpy', 'encodings.ascii', 'encodings.latin_1', *more))}\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "runpy.run_path(sys.argv[2], run_name='listed')\n"
        "print('\\n'.join(one.__file__ for one in sys.modules.values() if getattr(one, '__file__', None)))\n"
    )
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    argv = [sys.executable, "-S", "-c", listing, str(ROOT), str(program)]
    return [Path(line) for line in subprocess.check_output(argv, text=True, env=plain).split()]


def libraries_of(program: Path, beside: Path | None = None) -> list[Path]:
    """beside: a folder with libraries that this machine has not installed."""
    environment = dict(os.environ, **({"LD_LIBRARY_PATH": str(beside)} if beside else {}))
    lines = subprocess.check_output(["ldd", str(program)], text=True, env=environment).splitlines()
    return [Path(word) for line in lines for word in line.split() if word.startswith("/")]
