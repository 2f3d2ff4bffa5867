"""Rehearsals, `recstore .. --dry-run`: the methods of `Recstore` that change something, with the same options.

Each returns the SQL that would be executed, or what would be written, and changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import errors as pg
from psycopg import sql

from recstore import registry
from recstore.api import toml
from recstore.api.base import Given, Part, definition_of
from recstore.api.begin import definition_for
from recstore.api.files import Loading
from recstore.api.rows import Id, Statements
from recstore.config import Settings
from recstore.operations import readers, recommenders, schema
from recstore.operations.dry_run import Recorder, rehearsing
from recstore.postgres import grants
from recstore.publication import erasing, flipping, generations
from recstore.runs import lock_holder
from recstore.sql import queries, schema_revision
from recstore.sql.objects import FORGET, Registered
from recstore.wording import counted

if TYPE_CHECKING:
    from recstore import lists
    from recstore.files.archive import importing


class SchemaRehearsal(Part):
    """Rehearsals of `recstore db ..`."""

    def upgrade(self) -> Statements:
        """Return the SQL of `db.upgrade`: the migrations, then each recommender's objects."""
        with self._connection() as opened:
            extension = queries.row(opened, "vector_extension")
            statements = [] if extension else ["CREATE EXTENSION IF NOT EXISTS vector;"]
            statements += schema.statements(opened, "head")
            try:
                found = registry.all_registered(opened) if schema_revision.current(opened) else []
            except pg.UndefinedColumn:
                remark = "-- then the functions and views of each recommender, where this version's differ"
                return Statements((*statements, remark))
            for recommender in found:
                with rehearsing(opened) as recorder:
                    schema.upgrade_objects(recorder.stand_in, self.settings, recommender)
                statements += recorder.statements
            return Statements(tuple(statements))

    def downgrade(self, revision: str) -> Statements:
        """Return the SQL of `db.downgrade`."""
        with self._connection() as opened:
            return Statements(tuple(schema.statements(opened, revision, down=True)))

    def grant(self, role: str, *, requests: bool = True) -> Statements:
        """Return the SQL of `db.grant`."""
        with self._current() as opened, rehearsing(opened) as recorder:
            return Statements(tuple(grants.grant_watcher(recorder.stand_in, role, requests=requests)))

    def revoke(self, role: str) -> Statements:
        """Return the SQL of `db.revoke`."""
        with self._current() as opened, rehearsing(opened) as recorder:
            return Statements(tuple(grants.revoke_watcher(recorder.stand_in, role)))


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
        with self._current() as opened, rehearsing(opened) as recorder:
            recommenders.create(recorder.stand_in, self.settings, name, wanted)
        return Statements(tuple(recorder.statements))

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
        with self._rehearsing(name) as (recorder, recommender):
            wanted = definition_of(name, recommender.definition, definition, file, titles, settings)
            stand_in = recorder.stand_in
            recommenders.check_lists(stand_in, name, wanted, recommender)
            if recommenders.needs_resize(stand_in, recommender, wanted, resize):
                generations.abandon_unfinished(stand_in, recommender)
                self._prune(recorder, recommender)
                factors = wanted.hyperparameters.factors
                storage = registry.storage_for(recommender.definition, factors, fixed=False)
                generations.resize(stand_in, self.settings, recommender, *storage)
                recommender = registry.get(stand_in, name)
                generations.next_of(stand_in, self.settings, recommender)
            registry.alter(stand_in, self.settings, recommender, wanted, readers_may_fail=yes)
        return Statements(tuple(recorder.statements))

    def grant(self, name: str, role: str, *, people: bool = False, forget: bool = False) -> Statements:
        """Return the SQL of `grant`."""
        with self._rehearsing(name) as (recorder, recommender):
            granted = readers.grant_reader(recorder.stand_in, recommender, role, people=people, forget=forget)
            return Statements(tuple(granted))

    def forget(self, name: str, *, user: Id) -> Statements:
        """Return the SQL of `forget`, with a remark on the rows that it would remove."""
        with self._rehearsing(name) as (recorder, recommender):
            user_id = recommender.user_type.parse(str(user), "user id")
            done = erasing.forget(recorder.stand_in, recommender, user_id)
        call = f"SELECT {recommender.relation(FORGET)}({sql.Literal(user_id).as_string(None)});"
        return Statements((call, f"-- removes {counted(done.rows, 'row')}", *(f"-- {each}" for each in done.warnings)))

    def drop(self, name: str, *, cascade: bool = False) -> Statements:
        """Return the SQL of `drop`, with a remark for each object outside that goes along."""
        with self._rehearsing(name) as (recorder, recommender):
            running = _running(recorder, recommender)
            along = registry.drop(recorder.stand_in, self.settings, recommender, cascade=cascade)
        return Statements((*running, *(f"-- drops {what} too" for what in along), *recorder.statements))

    def publish(self, name: str, generation: int | None = None, *, now: bool = False) -> Statements:
        """Return the SQL of `publish`; only remarks if sessions hold it up, unless `now`."""
        with self._rehearsing(name) as (recorder, recommender):
            stand_in = recorder.stand_in
            ready = flipping.ready_generation(stand_in, recommender, generation)
            waits = [f"-- {ready} waits for {who}" for who in flipping.look_again(stand_in, recommender, generation)]
            if waits and not now:
                return Statements(tuple(waits))
            running = _running(recorder, recommender)
            flipping.flip(stand_in, ready, "publish", None, release=True)
            generations.next_of(stand_in, self.settings, recommender)
            self._prune(recorder, recommender)
        return Statements((*running, *waits, *recorder.statements))

    def rollback(self, name: str, *, to: int | None = None) -> Statements:
        """Return the SQL of `rollback`."""
        with self._rehearsing(name) as (recorder, recommender):
            flipping.roll_back(recorder.stand_in, recommender, to)
        return Statements(tuple(recorder.statements))

    def prune(self, name: str, *, keep: int | None = None, withheld: bool = False) -> Statements:
        """Return the SQL of `prune`, with a remark for each generation that stays for now."""
        with self._rehearsing(name) as (recorder, recommender):
            running = _running(recorder, recommender)
            if not running:
                generations.abandon_unfinished(recorder.stand_in, recommender)
            self._prune(recorder, recommender, keep, withheld=withheld)
        return Statements((*running, *recorder.statements))

    @contextmanager
    def _rehearsing(self, name: str) -> Iterator[tuple[Recorder, Registered]]:
        with self._current() as opened, rehearsing(opened) as recorder:
            yield recorder, registry.get(recorder.stand_in, name)

    def _prune(
        self, recorder: Recorder, recommender: Registered, keep: int | None = None, *, withheld: bool = False
    ) -> None:
        keep = keep or recommender.definition.publication.keep
        done = generations.prune(recorder.stand_in, self.settings, recommender, keep, 0, withheld=withheld).details()
        recorder.statements += [f"-- generation {words}" for words in generations.left_words(done)]

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


def _running(recorder: Recorder, recommender: Registered) -> list[str]:
    """Return a remark if a run is in progress, which would refuse the change for now."""
    who = lock_holder(recorder.stand_in, recommender)
    return [f"-- refused for now: another run of {recommender.name!r} is in progress ({who})"] if who else []
