"""Rehearsals, `recstore .. --dry-run`: the methods of `Recstore` that change something, with the same options.

Each returns the SQL that would be executed, or what would be written, and changes nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recstore import registry
from recstore.api import toml
from recstore.api.base import Given, Part, definition_of
from recstore.api.begin import definition_for
from recstore.api.files import Loading
from recstore.api.rows import Statements
from recstore.config import Settings
from recstore.operations import dry_run, recommenders
from recstore.postgres import grants

if TYPE_CHECKING:
    from recstore import lists
    from recstore.files.archive import importing


class SchemaRehearsal(Part):
    """Rehearsals of `recstore db ..`."""

    def upgrade(self) -> Statements:
        """Return the SQL of `db.upgrade`."""
        with self._connection() as opened:
            return Statements(tuple(dry_run.upgrade(opened, self.settings)))

    def downgrade(self, revision: str) -> Statements:
        """Return the SQL of `db.downgrade`."""
        with self._connection() as opened:
            return Statements(tuple(dry_run.downgrade(opened, revision)))

    def grant(self, role: str, *, requests: bool = True) -> Statements:
        """Return the SQL of `db.grant`."""
        with self._current() as opened:
            return Statements(tuple(grants.grant_watcher(opened, role, requests=requests, dry=True)))

    def revoke(self, role: str) -> Statements:
        """Return the SQL of `db.revoke`."""
        with self._current() as opened:
            return Statements(tuple(grants.revoke_watcher(opened, role, dry=True)))


class Rehearsal(Loading):
    """Rehearsals. Each raises what the method itself would raise, as far as that can be known."""

    dry = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.model_copy(update={"lock_attempts": 1}))  # reports who holds a lock, at once
        self.db = SchemaRehearsal(self.settings)

    def create(
        self,
        name: str,
        definition: Given = None,
        *,
        file: str | Path | None = None,
        titles: str | None = None,
        **settings: Any,
    ) -> Statements:
        """Return the SQL of `create`."""
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
        """Return the SQL of `alter`, and of the resize before it."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            wanted = definition_of(name, recommender.definition, definition, file, titles, settings)
            recommenders.check_lists(opened, name, wanted, recommender)
            recommenders.needs_resize(opened, recommender, wanted, resize)
            return Statements(tuple(dry_run.alter(opened, self.settings, recommender, wanted, readers_may_fail=yes)))

    def grant(self, name: str, role: str, *, people: bool = False) -> Statements:
        """Return the SQL of `grant`."""
        with self._current() as opened:
            return Statements(tuple(dry_run.grant_reader(opened, registry.get(opened, name), role, people=people)))

    def drop(self, name: str, *, cascade: bool = False) -> Statements:
        """Return the SQL of `drop`."""
        with self._current() as opened:
            return Statements(tuple(dry_run.drop(opened, self.settings, registry.get(opened, name), cascade=cascade)))

    def publish(self, name: str, *, now: bool = False) -> Statements:
        """Return the SQL of `publish`."""
        with self._current() as opened:
            return Statements(tuple(dry_run.publish(opened, self.settings, registry.get(opened, name), now=now)))

    def rollback(self, name: str, *, to: int | None = None) -> Statements:
        """Return the SQL of `rollback`."""
        with self._current() as opened:
            return Statements(tuple(dry_run.roll_back(opened, registry.get(opened, name), to)))

    def prune(self, name: str, *, keep: int | None = None) -> Statements:
        """Return the SQL of `prune`."""
        with self._current() as opened:
            return Statements(tuple(dry_run.prune(opened, self.settings, registry.get(opened, name), keep)))

    def recommend_all(self, name: str, into: str | Path, *, k: int = 20, users: str | None = None) -> "lists.ListsPlan":
        """Return the number of lists, their generation and the SQL that would write them."""
        from recstore import lists

        return lists.plan(self.url, name, into, k=k, users=users)

    def similar_all(self, name: str, into: str | Path, *, k: int = 20, min_users: int = 3) -> "lists.ListsPlan":
        """Return the number of lists, their generation and the SQL that would write them."""
        from recstore import lists

        return lists.plan(self.url, name, into, similar=True, k=k, min_users=min_users)

    def import_(self, name: str, file: str | Path, *, create: bool = False) -> "importing.Plan":
        """Return the contents of a file, and the effects of importing it."""
        from recstore.files.archive import importing

        return importing.look(self.url, name, Path(file), create=create)

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
        """Return the text of the file of settings."""
        chosen = {"table": table, "user": user, "item": item, **settings}
        return toml.settings_file(definition_for(self, titles, chosen), Path(file).name)
