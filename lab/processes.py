# SPDX-License-Identifier: Apache-2.0
"""Starts, finds and ends processes by pid *and* birth, because a bare pid in a file may be somebody else's by now."""
import os
import pathlib
import signal
import subprocess
import time

from lab.layout import MARKER

NOT_FOR_SERVICES = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH", "http_proxy", "https_proxy",
                    "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def birth(pid):
    """(state letter, start time in ticks) of a process, or None when there is no such process."""
    try:
        fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return fields[0], fields[19]


def record(pid_file, pid):
    pid_file.write_text("%d %s\n" % (pid, birth(pid)[1]))


def living(pid_file):
    """The pid that the file names, if that very process still lives; else None."""
    try:
        pid, born = pid_file.read_text().split()
    except (OSError, ValueError):
        return None
    now = birth(int(pid))
    return int(pid) if now and now[0] not in "ZX" and now[1] == born else None


def service_environment(lab, extra=None):
    env = {key: value for key, value in os.environ.items()
           if key not in NOT_FOR_SERVICES and not key.startswith("OS_")}
    env[MARKER] = str(lab.root)
    env.update(extra or {})
    return env


def spawn(argv, env, log, pid_file, cwd="/"):
    """Start a process in a session of its own; it outlives the command that started it."""
    with open(log, "ab") as out:
        child = subprocess.Popen([str(word) for word in argv], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, start_new_session=True)
    record(pid_file, child.pid)
    return child.pid


def signal_one(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def signal_group(pid, number):
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        signal_one(pid, number)


def wait_gone(pid_files, seconds):
    """True as soon as none of these lives any more."""
    until = time.monotonic() + seconds
    while any(living(path) for path in pid_files):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def end(pid_files, patience=10.0, at_once=False):
    """End these processes: ask all, wait for all together, then kill what is left."""
    for path in pid_files:
        pid = living(path)
        if pid:
            signal_group(pid, signal.SIGKILL if at_once else signal.SIGTERM)
    if not wait_gone(pid_files, 5.0 if at_once else patience):
        for path in pid_files:
            pid = living(path)
            if pid:
                signal_group(pid, signal.SIGKILL)
        wait_gone(pid_files, 5.0)
    for path in pid_files:
        path.unlink(missing_ok=True)


def of_lab(lab):
    """Every living process that carries this lab's mark in its environment, whoever started it."""
    mark = ("%s=%s" % (MARKER, lab.root)).encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if (birth(pid) or "Z")[0] != "Z"]


def sweep(lab):
    """Kill what the orderly stop has left behind; returns how many there were."""
    left = of_lab(lab)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    until = time.monotonic() + 5
    while of_lab(lab) and time.monotonic() < until:
        time.sleep(0.05)
    return len(left)


def memory(pid, field="Pss"):
    """MiB of one process; Pss shares out the pages that forked hosts have in common."""
    try:
        for line in pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def sessions():
    """Session id -> pids, to count a service together with the workers it has forked."""
    table = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            table.setdefault(int(fields[3]), []).append(int(entry.name))
    return table
