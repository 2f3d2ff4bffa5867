"""recstore apply: the recommenders of one file."""

import typer

from recstore.api.apply import Applying, ApplyRehearsal, Changes
from recstore.api.rows import Change
from recstore.cli.commands import Commands
from recstore.cli.screen import say


def register(app: typer.Typer) -> None:
    Commands(app, Applying, ApplyRehearsal).add(
        "apply",
        _applied,
        ask=_asked,
        notes="Without a terminal it needs --yes. Another run prints nothing.",
        example="recstore apply recommenders.toml --yes",
    )


def _asked(part: Applying, file: str, prune: bool) -> str | None:
    changes = part.differences(file, prune=prune)
    for change in changes:
        say(f"{change.action} {change.recommender}")
        for line in change.differences:
            say(f"  {line}")
    return f"Apply {_counted(changes)}?" if changes else None


def _counted(changes: Changes) -> str:
    return "this change" if len(changes) == 1 else f"these {len(changes)} changes"


def _applied(changes: list[Change]) -> None:
    for change in changes:
        done = {"create": "created", "alter": "altered", "drop": "dropped"}[change.action]
        say(f"{done} {change.recommender}")
