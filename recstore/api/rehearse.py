"""Dry runs, `recstore .. --dry-run`: the methods of `Recstore` that change something, with the same options; each returns the
SQL that would be executed, or what would be written, and changes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recstore import lists, registry
from recstore.api import toml
from recstore.api.base import Given, Part, definition_of
from recstore.api.begin import definition_for
from recstore.api.files import lines, names, run_load
from recstore.api.rows import Loaded, Statements
from recstore.config import Settings
from recstore.files.archive import importing
from recstore.files.load.examining import wanted_of
from recstore.files.load.layout import Given as TextLayout
from recstore.operations import dry_run, recommenders
from recstore.postgres import grants
from recstore.runs import Reporter


class SchemaRehearsal(Part):
    """Dry runs of `recstore db ..`."""

    def upgrade(self) -> Statements:
        """Of bringing the database to this version."""
        with self._connection() as opened:
            return Statements(tuple(dry_run.upgrade(opened, self.settings)))

    def downgrade(self, revision: str) -> Statements:
        """Of going back to an earlier revision."""
        with self._connection() as opened:
            return Statements(tuple(dry_run.downgrade(opened, revision)))

    def grant(self, role: str, *, requests: bool = True) -> Statements:
        """Of letting a role watch and ask."""
        with self._current() as opened:
            return Statements(tuple(grants.grant_watcher(opened, role, requests=requests, dry=True)))

    def revoke(self, role: str) -> Statements:
        """Of taking that back."""
        with self._current() as opened:
            return Statements(tuple(grants.revoke_watcher(opened, role, dry=True)))


class Rehearsal(Part):
    """Dry runs. Each raises what the method itself would raise, as far as it can be known."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.db = SchemaRehearsal(settings)

    def init(
        self,
        file: str | Path = "recstore.toml",
        *,
        table: str,
        user: str,
        item: str,
        titles: str | None = None,
        **settings: str | None,
    ) -> str:
        """The file of settings, as text."""
        given = {"table": table, "user": user, "item": item, **settings}
        return toml.settings_file(definition_for(self, titles, given), file)

    def create(
        self,
        name: str,
        definition: Given = None,
        *,
        file: str | Path | None = None,
        titles: str | None = None,
        **settings: Any,
    ) -> Statements:
        """Of making a recommender."""
        wanted = definition_of(name, None, definition, file, titles, settings)
        with self._current() as opened:
            recommenders.check_lists(opened, name, wanted)
            return Statements(tuple(dry_run.create(opened, self.settings, name, wanted)))

    def alter(
        self,
        name: str,
        definition: Given = None,
        *,
        file: str | Path | None = None,
        titles: str | None = None,
        resize: bool = False,
        yes: bool = False,
        **settings: Any,
    ) -> Statements:
        """Of changing settings, and of the resize before that."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            wanted = definition_of(name, recommender.definition, definition, file, titles, settings)
            recommenders.check_lists(opened, name, wanted, recommender)
            recommenders.needs_resize(opened, recommender, wanted, resize)
            return Statements(tuple(dry_run.alter(opened, self.settings, recommender, wanted, readers_may_fail=yes)))

    def grant(self, name: str, role: str, *, people: bool = False) -> Statements:
        """Of letting a role read."""
        with self._current() as opened:
            return Statements(tuple(dry_run.grant_reader(opened, registry.get(opened, name), role, people=people)))

    def drop(self, name: str, *, cascade: bool = False) -> Statements:
        """Of removing a recommender."""
        with self._current() as opened:
            return Statements(tuple(dry_run.drop(opened, self.settings, registry.get(opened, name), cascade=cascade)))

    def publish(self, name: str, *, now: bool = False) -> Statements:
        """Of making the generation live that is ready."""
        with self._current() as opened:
            return Statements(tuple(dry_run.publish(opened, self.settings, registry.get(opened, name), now=now)))

    def rollback(self, name: str, *, to: int | None = None) -> Statements:
        """Of making an earlier generation live again."""
        with self._current() as opened:
            return Statements(tuple(dry_run.roll_back(opened, registry.get(opened, name), to)))

    def prune(self, name: str, *, keep: int | None = None) -> Statements:
        """Of removing old generations."""
        with self._current() as opened:
            return Statements(tuple(dry_run.prune(opened, self.settings, registry.get(opened, name), keep)))

    def recommend_all(self, name: str, into: str | Path, *, k: int = 20, users: str | None = None) -> lists.Plan:
        """How many lists it would be, from which generation, into what."""
        return lists.plan(self.url, name, into, k=k, users=users)

    def similar_all(self, name: str, into: str | Path, *, k: int = 20, min_users: int = lists.MIN_USERS) -> lists.Plan:
        """How many lists it would be, from which generation, into what."""
        return lists.plan(self.url, name, into, similar=True, k=k, min_users=min_users)

    def import_(self, name: str, file: str | Path, *, create: bool = False) -> importing.Plan:
        """What is in a file, and what importing it would do."""
        return importing.look(self.url, name, Path(file), create=create)

    def load(
        self,
        file: str | Path,
        table: str,
        *,
        append: bool = False,
        replace: bool = False,
        delimiter: str | None = None,
        quote: str | None = None,
        escape: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
        columns: Sequence[str] | str | None = None,
        type: Mapping[str, str] | None = None,
        null: Sequence[str] | None = None,
        primary_key: Sequence[str] | str = (),
        max_bad: float | str = 0,
        bad: str | Path | None = None,
        reporter: Reporter | None = None,
    ) -> Loaded:
        """What is in a file: its columns with their types, its bad lines, and the SQL that would load it."""
        text = TextLayout(delimiter, quote, escape, encoding, header)
        wanted = wanted_of(
            table, append, replace, text, names(columns), type, null, names(primary_key) or (), lines(max_bad), bad
        )
        return run_load(self, file, wanted, bad, reporter, dry=True)
