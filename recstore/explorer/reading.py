"""The connection of a page: from a pool, in one READ ONLY transaction, and with the text of every statement."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg
from sqlalchemy import event, exc, pool

from recstore import registry
from recstore.api.ask import Asking
from recstore.api.jobs import Jobs
from recstore.api.rows import Status
from recstore.api.watch import Watching
from recstore.background import watching
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import PermissionDenied, RecstoreError
from recstore.operations.questions import PATIENCE, Question
from recstore.postgres.connection import Connection, connect, one_line, plain_errors, read_only, role_of
from recstore.postgres.names import readable
from recstore.sql import schema_revision
from recstore.sql.objects import Known


class Recorder(psycopg.ClientCursor[dict[str, Any]]):
    """A cursor that fills in parameters itself, and keeps the text of what it executes."""

    def __init__(self, executed: list[str], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executed = executed

    def execute(self, query: Any, params: Any = None, **options: Any) -> "Recorder":
        text = self.mogrify(query, params) if params is not None else query
        self.executed.append(str(text))
        return super().execute(text, **options)


@dataclass
class Listed:
    """The rows of a list, the SQL that returned them, and the sentence where there are none or the role may not see them."""

    sql: str
    rows: Sequence[Any] = ()
    empty: str = "Nothing."
    refused: str = ""

    @property
    def titled(self) -> bool:
        """True if a row has a title."""
        return any(getattr(row, "title", None) for row in self.rows)


class Store(Watching, Asking, Jobs):
    """The reading methods of `Recstore`, on one connection."""

    def __init__(self, settings: Settings, opened: Connection) -> None:
        super().__init__(settings)
        self.opened = opened

    @contextmanager
    def _watching(self) -> Iterator[Connection]:
        with self.opened.transaction():  # an error leaves the page's transaction usable
            yield self.opened

    _current = _watching

    def _status(self, opened: Connection, name: str | None, known: dict[str, list[str]] | None = None) -> Status:  # noqa: ARG002
        return super()._status(opened, name, _NoDrift())


class _NoDrift(dict[str, list[str]]):
    """No drift of any recommender: a READ ONLY transaction cannot look for it."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> list[str]:
        return []


@dataclass
class Page:
    """A page's store, and the statements that it has executed."""

    store: Store
    executed: list[str]

    @property
    def opened(self) -> Connection:
        return self.store.opened

    def known(self, name: str) -> Known:
        """Return a recommender. Raises RecommenderNotFound."""
        return registry.known(self.opened, name)

    def statement(self, part: str) -> str:
        """Return the first statement of this page that contains a text; empty if there is none."""
        return next((text.strip() for text in self.executed if part in text), "")

    def listed(self, ask: Callable[[], Any], empty: str = "Nothing.", known: Known | None = None) -> Listed:
        """Ask for rows; what the role may not see becomes a sentence."""
        before = len(self.executed)
        try:
            with self.opened.transaction():
                rows = ask()
        except (PermissionDenied, pg.InsufficientPrivilege) as error:
            return Listed(self._sql(before), refused=self._refusal(error, known))
        except RecstoreError as error:
            return Listed(self._sql(before), refused=error.message)
        return Listed(getattr(rows, "statement", self._sql(before)), rows, getattr(rows, "empty", empty))

    def asked(self, question: Question, empty: str = "Nothing.") -> Listed:
        """Ask a question as `listed` does."""
        listed = self.listed(partial(question.ask, self.opened), empty, question.recommender)
        listed.sql = question.statement
        return listed

    @contextmanager
    def generation(self, number: int) -> Iterator[None]:
        """Show a generation that is not live."""
        with self.opened.transaction(force_rollback=True):
            self.opened.execute(f"SET LOCAL recstore.generation = '{int(number)}'")
            yield

    def _sql(self, before: int) -> str:
        """Return the last statement that is no housekeeping."""
        texts = [text for text in self.executed[before:] if not text.startswith(("SET ", "SELECT set_config"))]
        return texts[-1].strip() if texts else ""

    def _refusal(self, error: Exception, known: Known | None) -> str:
        role = role_of(self.opened)
        words = f"The role {role} may not see this: {getattr(error, 'reason', None) or one_line(error)}."
        if known is None:
            return f"{words} To let it, run: recstore db grant {readable(role)}"
        return f"{words} To let it, run: recstore grant {known.name} {readable(role)} --people"


class Pages:
    """Connections to the database of the settings, kept between two pages."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = pool.QueuePool(self._connect, pool_size=4, max_overflow=12, timeout=10, reset_on_return=None)
        event.listen(self.pool, "checkout", _check)

    def _connect(self) -> Any:
        return connect(database_url(self.settings), "recstore:explorer")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        borrowed = self.pool.connect()
        try:
            opened: Any = borrowed.dbapi_connection
            with plain_errors("asking the database", opened):
                yield opened
        finally:
            borrowed.close()

    @contextmanager
    def reading(self) -> Iterator[Page]:
        """Open a page in one snapshot. Raises ConnectionFailed, SchemaMissing, SchemaOutdated, PermissionDenied."""
        with self._connection() as opened, read_only(opened, statement_timeout=int(PATIENCE * 1000)):
            opened.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with suppress(pg.InsufficientPrivilege), opened.transaction():
                schema_revision.require_current(opened)
            page = Page(Store(self.settings, opened), [])
            opened.cursor_factory = partial(Recorder, page.executed)  # type: ignore[assignment]
            try:
                yield page
            finally:
                opened.cursor_factory = psycopg.Cursor

    def close(self) -> None:
        """Close the connections."""
        self.pool.dispose()

    def drift(self, name: str) -> list[str]:
        """Return what no longer fits a recommender's schema. Looking for it makes views, which are rolled back."""
        with self._connection() as opened:
            return watching.drift(opened, name)


def _check(connection: Any, *_: object) -> None:
    """Replace a connection that the server has closed."""
    try:
        connection.execute("SELECT")
    except psycopg.Error as error:
        connection.close()
        raise exc.DisconnectionError from error
