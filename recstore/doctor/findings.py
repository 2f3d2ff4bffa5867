"""The findings of a check, and the list of all checks.

A new check is a function with `@check(...)` in the module of its group, and a line in docs/doctor.md. Its name is the
function's, with hyphens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]

LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
"""From best to worst."""

Scope = Literal["process", "database", "registry", "recommender", "reader"]
"""How often a check runs: once without a database; once in any database; once, or once for each recommender, where
recstore's own tables can be read; once for each reader of each recommender."""


@dataclass(frozen=True)
class Finding:
    """One finding. A check makes it by `ok`, `note`, `warning` or `error`; the runner adds the last four fields."""

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

    @property
    def title(self) -> str:
        """Return the check, whose it is, and the finding."""
        whose = f" of {self.recommender}" if self.recommender else ""
        whose += f" for {self.reader}" if self.reader else ""
        return f"{self.check}{whose}: {self.found}"

    def __str__(self) -> str:
        """Return the finding and its remedies in a line."""
        return f"{self.title}." + (f" Remedy: {' '.join(self.remedies)}" if self.remedies else "")


def ok(found: str) -> Finding:
    return Finding("ok", found)


def note(found: str, means: str, *remedies: str) -> Finding:
    """Report something worth knowing that needs no action."""
    return Finding("note", found, means, remedies)


def warning(found: str, means: str, *remedies: str) -> Finding:
    """Report something that is slower, less or later than necessary, or that will fail in another event."""
    return Finding("warning", found, means, remedies)


def error(found: str, means: str, *remedies: str) -> Finding:
    """Report something with which recstore, or an application's query, fails."""
    return Finding("error", found, means, remedies)


Look = Callable[..., Iterator[Finding]]
"""Yields findings. Called with the settings for the scope "process", otherwise with the subject."""


@dataclass(frozen=True)
class Check:
    """A check as the runner knows it."""

    name: str
    group: str
    scope: Scope
    look: Look
    well: str = ""
    """Text of the `ok` finding when the check yields nothing; empty: none."""
    writes: bool = False
    """True for a check that tries a change, which is rolled back."""
    quick: bool = False
    """True for a check that needs some milliseconds, whatever the size of the data: `create`, `retrain` and a starting worker
    run these, and warn of what they find. It should find what was not so by choice."""


CHECKS: list[Check] = []
"""Within a group, in the order in which they run."""


def check(
    scope: Scope = "database", *, well: str = "", writes: bool = False, quick: bool = False
) -> Callable[[Look], Look]:
    """Add the function to the list."""

    def register(look: Look) -> Look:
        group = look.__module__.rpartition(".check_")[2]
        CHECKS.append(Check(look.__name__.replace("_", "-"), group, scope, look, well, writes, quick))
        return look

    return register
