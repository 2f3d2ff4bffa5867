"""The bad lines of a file: counted, with the reason for each, and written to a file on request."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recstore.atomic import replacing
from recstore.errors import InvalidInput, ReportNotWritten

MOST = 100_000
"""Bad lines that are counted before reading is given up, where no more are allowed."""

TEXT_LENGTH = 10_000
"""Characters kept of a bad line for `--bad`."""


@dataclass(frozen=True)
class Allowed:
    """How many bad lines are left out instead of refusing the load: a number, or a share of all."""

    lines: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Allowed":
        """From "10", "0.01" or "1%". Raises InvalidInput."""
        try:
            if text.endswith("%") or "." in text or "e" in text:  # 1e-05
                share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
                if not 0 <= share <= 1:
                    raise ValueError
                return cls(share=share)
            if int(text) < 0:
                raise ValueError
            return cls(lines=int(text))
        except ValueError:
            raise InvalidInput(
                f"--max-bad is {text!r}: give a number of lines, or a share such as 0.01 or 1%."
            ) from None

    def of(self, rows: int) -> int:
        return max(self.lines, int(self.share * rows))


@dataclass
class BadLines:
    """Reasons by line, and with `keep_text` the lines themselves."""

    keep_text: bool = False
    most: int = MOST
    reasons: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    unmade: int = 0
    """Lines that made no row at all."""

    def unmake(self, line: int, reason: str, text: bytes = b"") -> None:
        """A line that makes no row."""
        self.unmade += 1
        self.add(line, reason, text)

    def add(self, line: int, reason: str, text: bytes = b"") -> None:
        self.reasons[line] = f"{self.reasons[line]}; {reason}" if line in self.reasons else reason
        if self.keep_text and text:
            self.texts.setdefault(line, as_text(text))

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def too_many(self) -> bool:
        return len(self) > self.most

    def lines(self) -> NDArray[np.int64]:
        return np.array(sorted(self.reasons), np.int64)

    def first(self, number: int) -> list[tuple[int, str]]:
        return [(line, self.reasons[line]) for line in self.lines()[:number].tolist()]

    def write(self, path: Path) -> None:
        """As CSV: line, reason, text; whole or not at all. Raises ReportNotWritten."""
        with replacing(path, ReportNotWritten) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["line", "reason", "text"])
            for line in self.lines().tolist():
                writer.writerow([line, self.reasons[line], self.texts.get(line, "")])


def as_text(record: bytes) -> str:
    """A line of the file as it can be shown."""
    return record.removesuffix(b"\r").decode("utf-8", "backslashreplace")[:TEXT_LENGTH]


def ranges(lines: NDArray[np.int64], most: int = 50) -> str:
    """Line numbers for people: "3, 7-9, 12", and how many more."""
    if not len(lines):
        return ""
    parts: list[str] = []
    breaks = np.flatnonzero(np.diff(lines) > 1) + 1
    runs = np.split(lines, breaks)
    for run in runs[:most]:
        parts.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
    left = sum(map(len, runs[most:]))
    return ", ".join(parts) + (f" and {left:,} more" if left else "")
