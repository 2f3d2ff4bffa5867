"""A worker's log: a line for each record, whatever its text holds."""

import json
import logging
import re
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(message)s"
"""Form of a line."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, marks that change the direction of writing, lone surrogates."""


def printable(text: str) -> str:
    """Return text with each unprintable character as Python's escape."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class LineFormatter(logging.Formatter):
    """Formats a record as one line, and a traceback as indented lines: no text from elsewhere can look like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # as another formatter wrote it
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        about = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            about["error"] = self.formatException(record.exc_info)
        return json.dumps(about)


def log_lines(as_json: bool = False) -> None:
    """Let this process log to standard error, one line for each record."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
