# SPDX-License-Identifier: Apache-2.0
"""What watchers have in common: a thread that looks again and again until it is stopped."""
import threading
import time


class Sampler:
    """Calls `sample()` every `interval` seconds until stopped; `report()` may be read at any time."""

    def __init__(self, interval):
        self.interval = interval
        self.samples = 0
        self._doubles = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = None

    def report(self):
        with self._lock:
            return {"samples": self.samples, "doubles": [dict(entry) for entry in self._doubles.values()]}

    def run(self):
        while not self._stop.is_set():
            began = time.monotonic()
            self.sample()
            self._stop.wait(max(0.0, self.interval - (time.monotonic() - began)))

    def start(self):
        self._thread = threading.Thread(target=self.run, name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        if self._thread:
            self._thread.join()
        return self.report()
