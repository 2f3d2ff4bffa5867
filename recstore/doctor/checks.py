"""The list of all checks. A new one is a function with `@check(..)` in the module of its group, and a line in docs/doctor.md."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from recstore.doctor.findings import Finding

Scope = Literal["process", "database", "recommender", "reader"]
"""What a check is run for: once in this process, without a database; once in the database; for each recommender; for each of
a recommender's readers."""

Transaction = Literal["read only", "rolled back", "its own"]
"""What a check runs in: a READ ONLY transaction; one that it may write in, and that is rolled back; or none, because what it
calls begins READ ONLY transactions with timeouts itself."""

Look = Callable[..., Iterator[Finding]]
"""Yields findings. Called with the settings for the scope "process", else with the subject, and as the scope has them with
the recommender's name and the reader's role."""


@dataclass(frozen=True)
class Check:
    """What is looked at, and by which function."""

    name: str
    group: str
    scope: Scope
    look: Look
    own: bool
    """Reads recstore's own tables: only for a role that may, in a database that has them."""
    transaction: Transaction


CHECKS: list[Check] = []
"""In the order in which they are run and told."""


def check(
    name: str, group: str, scope: Scope = "database", *, own: bool = False, transaction: Transaction = "read only"
) -> Callable[[Look], Look]:
    """Puts a function into the list. `own`: it reads recstore's own tables (or asks `registry`), so it is left out where
    those are not there or not this role's to read."""

    def register(look: Look) -> Look:
        CHECKS.append(Check(name, group, scope, look, own, transaction))
        return look

    return register
