"""What a check finds: how bad it is, what it means, and what mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]

LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
"""From best to worst."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A check makes it by `ok`, `note`, `warning` or `error`; whose it is (check, group,
    recommender, reader) is filled in by whoever ran the check."""

    level: Level
    found: str
    means: str = ""
    remedies: tuple[str, ...] = ()
    """Each on a line of its own and ready to paste: SQL that ends in a semicolon, a command that begins with `recstore`, or a
    setting NAME=value."""
    check: str = ""
    group: str = ""
    recommender: str | None = None
    reader: str | None = None


def ok(found: str) -> Finding:
    return Finding("ok", found)


def note(found: str, means: str, *remedies: str) -> Finding:
    """Worth knowing; nothing needs to be done."""
    return Finding("note", found, means, remedies)


def warning(found: str, means: str, *remedies: str) -> Finding:
    """Something is slower, less, or later than it need be, or will fail when something else happens."""
    return Finding("warning", found, means, remedies)


def error(found: str, means: str, *remedies: str) -> Finding:
    """recstore, or an application's query, fails as it is."""
    return Finding("error", found, means, remedies)


def worst(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
