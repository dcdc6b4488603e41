"""Progress of a sweep on stderr: one line that is redrawn at a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from typing import TextIO

from npusim.sweep.run import Listener
from npusim.sweep.store import DONE, Result
from npusim.text import clean

REDRAW_S, PLAIN_S = 0.1, 10.0
WINDOW = 200
BAR = 24


class Progress(Listener):
    """Counts results, the rate of the last WINDOW of them, and the time left at that rate."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.total = self.known = 0
        self.counts: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=WINDOW)
        self.begin = self.shown = time.monotonic()
        self.failure = ""

    def planned(self, number: int, total: int) -> None:
        if self.live and (number == total or time.monotonic() - self.shown > REDRAW_S):
            self._redraw(f"checking points: {number:,} of {total:,}")

    def start(self, total: int, known: int) -> None:
        self.total, self.known = total, known
        self.begin = time.monotonic()
        known_text = f", {known:,} of them known" if known else ""
        self._line(f"{total:,} points{known_text}")

    def result(self, result: Result) -> None:
        self.counts[result.status] += 1
        self.times.append(time.monotonic())
        if result.status != DONE and not self.failure:
            self.failure = f"{result.status}: {result.message.splitlines()[0] if result.message else ''}"
            self._line(f"first failure: {clean(self.failure)}")
        if time.monotonic() - self.shown >= (REDRAW_S if self.live else PLAIN_S):
            self._redraw(self.state()) if self.live else self._line(self.state())

    def stop(self) -> None:
        if self.total > self.known:
            self._line(self.state())

    def state(self) -> str:
        """'[####    ] 120 of 1,000, 2 failed, 16.1/s, 55 s left'."""
        ended = sum(self.counts.values())
        done = ended + self.known
        parts = [f"{done:,} of {self.total:,}"]
        failed = ended - self.counts[DONE]
        if failed:
            parts.append(f"{failed:,} failed")
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        if span > 0:
            rate = (len(self.times) - 1) / span
            parts.append(f"{rate:.3g}/s")
            left = self.total - done
            parts.append(
                f"{duration(left / rate)} left" if left else f"{duration(time.monotonic() - self.begin)} in all"
            )
        filled = BAR * done // max(1, self.total)
        bar = f"[{'#' * filled}{' ' * (BAR - filled)}] " if self.live else ""
        return bar + ", ".join(parts)

    def _redraw(self, text: str) -> None:
        import shutil

        width = shutil.get_terminal_size().columns - 1
        self.stream.write(f"\r\x1b[K{text[:width]}")
        self.stream.flush()
        self.shown = time.monotonic()

    def _line(self, text: str) -> None:
        self.stream.write(f"\r\x1b[K{text}\n" if self.live else f"{text}\n")
        self.stream.flush()
        self.shown = time.monotonic()


def duration(seconds: float) -> str:
    """'42 s', '3 min 5 s', '2 h 10 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
