"""Collect the bad lines of a file with the reason for each: how many a load leaves out, and a file of them."""

import csv
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from recstore.atomic import replacing
from recstore.errors import InvalidInput, ReportNotWritten

MOST = 100_000
"""Bad lines after which reading stops, if no more are allowed."""

TEXT_LENGTH = 10_000
"""Characters kept of a bad line for `--bad`."""


def allowed(max_bad: float | str) -> int | float:
    """Read the bad lines that a load leaves out: a number such as 10, or a share of all, 0.01 or "1%". Raises InvalidInput."""
    text = str(max_bad)
    try:
        if text.endswith("%") or "." in text or "e" in text:  # 1e-05
            found: int | float = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
        else:
            found = int(text)
        if isinstance(max_bad, float) and found >= 1 and found == int(found):
            found = int(found)  # 1.0 as a share would be all of them
        if found < 0 or (isinstance(found, float) and not found <= 1):
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidInput(f"--max-bad is {text!r}: give a number of lines, or a share such as 0.01 or 1%.") from None
    return found


@dataclass
class BadLines:
    """Reasons by line, and the lines themselves where `--bad` asks for them."""

    most: int = MOST
    reasons: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def add(self, line: int, reason: str) -> None:
        self.reasons[line] = f"{self.reasons[line]}; {reason}" if line in self.reasons else reason

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def too_many(self) -> bool:
        return len(self) > self.most

    def lines(self) -> list[int]:
        return sorted(self.reasons)

    def first(self, number: int) -> list[tuple[int, str]]:
        return [(line, self.reasons[line]) for line in self.lines()[:number]]

    def write(self, path: Path) -> None:
        """Write line, reason and text as CSV, whole or not at all. Raises ReportNotWritten."""
        with replacing(path, ReportNotWritten) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["line", "reason", "text"])
            for line in self.lines():
                writer.writerow([line, self.reasons[line], self.texts.get(line, "")])


def printable(text: str) -> str:
    """Return a line of the file as it can be shown, undecodable bytes as \\xNN."""
    return text.rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:TEXT_LENGTH]


def ranges(lines: list[int], most: int = 50) -> str:
    """Return ascending line numbers as text: "3, 7-9, 12", and how many more."""
    runs = [[line for _, line in run] for _, run in groupby(enumerate(lines), lambda one: one[1] - one[0])]
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:most]]
    left = sum(map(len, runs[most:]))
    return ", ".join(parts) + (f" and {left:,} more" if left else "")
