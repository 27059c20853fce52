"""What the program says to its supervisor: one JSON object per line on standard output (audio contract 7.2).

Everything else that is written to standard output, by a library or by its C code, goes to standard error instead, so
that no line is ever torn.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import Any, TextIO

_lock = threading.Lock()
_output: TextIO = sys.stdout


def take_stdout() -> None:
    """Keep standard output for `emit` alone."""
    global _output
    sys.stdout.flush()
    # Names of files need not be UTF-8; a line with such a name must not be lost.
    _output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", newline="\n")
    os.dup2(2, 1)


def emit(event: str, **fields: Any) -> None:
    """Write one line. A supervisor that is gone is noticed at standard input, not here."""
    line = json.dumps({"event": event, **fields}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with _lock:
        try:
            _output.write(line + "\n")
            _output.flush()
        except (OSError, ValueError):
            pass


def log(level: str, message: str) -> None:
    """A line for the model's log; `level` is `debug`, `info`, `warn` or `error`."""
    emit("log", level=level, message=message)


class _Lines(logging.Handler):
    """Turns records of Python's logging into lines."""

    _LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for least, name in self._LEVELS if record.levelno >= least), "debug")
        try:
            log(level, f"{record.name}: {self.format(record)}")
        except Exception:
            self.handleError(record)


def take_logging() -> None:
    """Send what libraries log, from warnings on, into the lines."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)
