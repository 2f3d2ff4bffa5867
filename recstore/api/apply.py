"""Recommenders in one file: what differs from it in the database, and the changes that make them the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from recstore import registry
from recstore.api import options
from recstore.api.arguments import Argument, Option
from recstore.api.base import Part
from recstore.api.manage import Managing, Resize
from recstore.api.rehearse import Rehearsal
from recstore.api.rows import Change, Statements
from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.runs import Reporter

SourceFile = Annotated[
    Path | str, Argument("A TOML file with the sections of each recommender, as [retail.source].", "FILE")
]
Prune = Annotated[bool, Option("Drop the recommenders that the file does not name.")]
Changes = list[Change]


class Applying(Managing):
    """The recommenders of a file."""

    def differences(self, file: Path | str, *, prune: bool = False) -> Changes:
        """Return what `apply` would do. Raises InvalidInput."""
        return _compared(self, _definitions(Path(file)), prune)

    def apply(
        self, file: SourceFile, *, prune: Prune = False, resize: Resize = False, reporter: Reporter | None = None
    ) -> Changes:
        """Create and alter recommenders as a file says; do nothing where they are so already.

        The file has the whole definition of each: a setting that it does not name has its default. Every change is tried first
        in a transaction that is rolled back, so a file with a mistake changes nothing.

        Raises what `create`, `alter` and `drop` raise.
        """
        wanted = _definitions(Path(file))
        changes = _compared(self, wanted, prune)
        rehearsal = Rehearsal(self.settings)
        for change in changes:
            _done(rehearsal, change, wanted, resize=resize)
        for change in changes:
            _done(self, change, wanted, resize=resize, reporter=reporter)
        return changes


class ApplyRehearsal(Rehearsal):
    """The rehearsal of `apply`, next to the others."""

    def apply(self, file: Path | str, *, prune: bool = False, resize: bool = False) -> Statements:
        """Return the SQL of `apply`."""
        wanted = _definitions(Path(file))
        statements: list[str] = []
        for change in _compared(self, wanted, prune):
            done = _done(self, change, wanted, resize=resize)
            statements += [f"-- {change.action} {change.recommender}", *done.statements]
        return Statements(tuple(statements))


def _compared(part: Part, wanted: Mapping[str, Definition], prune: bool) -> Changes:
    with part._current() as opened:
        present = {found.name: found.definition for found in registry.all_registered(opened)}
    changes = []
    for name, definition in wanted.items():
        before = present.get(name)
        if definition != before:
            changes.append(Change(name, "create" if before is None else "alter", _differences(before, definition)))
    dropped = sorted(present.keys() - wanted.keys()) if prune else []
    return changes + [Change(name, "drop", ()) for name in dropped]


def _done(part: Managing | Rehearsal, change: Change, wanted: Mapping[str, Definition], **options: Any) -> Any:
    """Make one change, or rehearse it."""
    name = change.recommender
    if change.action == "drop":
        return part.drop(name)
    return part.create(name, wanted[name]) if change.action == "create" else part.alter(name, wanted[name], **options)


def _definitions(path: Path) -> dict[str, Definition]:
    """Return the definitions of a file by the names of the recommenders. Raises InvalidInput."""
    found = {}
    for name, sections in options.parsed(path).items():
        if not isinstance(sections, dict) or not all(isinstance(values, dict) for values in sections.values()):
            raise InvalidInput(
                f"{path}: {name} is no recommender with sections. Begin each section with the name of its recommender, as"
                " [retail.source]."
            )
        try:
            found[name] = options.merge(sections, {}, None)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, {name}: {error.message}") from None
    return found


def _differences(before: Definition | None, after: Definition) -> tuple[str, ...]:
    """Return a line for each setting that differs, of a new recommender for each that is not the default."""
    new, old = _flat(after), {} if before is None else _flat(before)
    if before is None:
        defaults = _flat(Definition.model_construct(source=type(after.source).model_construct()))
        return tuple(f"{key} = {value!r}" for key, value in new.items() if value != defaults.get(key))
    return tuple(f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in old | new if old.get(key) != new.get(key))


def _flat(definition: Definition) -> dict[str, Any]:
    sections = definition.model_dump(mode="json")
    return {
        f"{section}.{name}": value for section, values in sections.items() for name, value in (values or {}).items()
    }
