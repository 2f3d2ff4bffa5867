"""The jobs that write every list from one snapshot, into a table or a file.

    snapshot -> items -> blocks of owners -> scores -> the k best -> rows -> a new table or file -> swapped for the old one

They only read the recommender, so they run next to a training without delaying it. A generation that goes live in the
meantime is for the next lists.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from threadpoolctl import threadpool_limits

from recstore import registry
from recstore.config import Settings
from recstore.errors import InvalidInput
from recstore.lists import output, reading, shapes, tables
from recstore.lists.blocks import Block, Items, ListRows, Scoring
from recstore.lists.reading import Snapshot
from recstore.lists.shapes import Shape
from recstore.lists.tables import ListTable
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.runs import ListsRun, Reporter
from recstore.sql.generation import Generation
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current
from recstore.wording import counted, duration

MIN_USERS = 3
"""Default of similar_items() for the users of an item."""

Add = Callable[[Block, ListRows], None]


@dataclass(frozen=True)
class Made:
    """Lists that were written: their number, and the rows in them."""

    run: int
    generation: int
    into: str
    lists: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class ListsPlan:
    """What a job would do: its SQL, and the number of owners of lists (users or items) and of items to list."""

    into: str
    generation: int
    owners: int
    items: int
    statements: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """Lists to write, checked against the database."""

    shape: Shape
    into: str
    target: ListTable | Path
    k: int
    query: str | None  # of users; None: all
    min_users: int

    @property
    def similar(self) -> bool:
        return self.shape.command == "similar-all"

    def comment(self, recommender: Registered, generation: int) -> str:
        """Return the comment on the table, by which later lists recognize that they may replace it."""
        mark = tables.MARK.format(command=self.shape.command, name=recommender.name)
        return f"{mark} generation {generation}, k {self.k}. The next one replaces this table."


def recommend_all(
    url: str,
    settings: Settings,
    name: str,
    into: str | Path,
    *,
    k: int = 20,
    users: str | None = None,
    reporter: Reporter | None = None,
) -> Made:
    """Write the answers of `recommend(user, k)`, by exact scan, for every user of the live generation.

    `users` is a SELECT whose first column names other users, who may be unknown to the generation. `into` is schema.table,
    or a file with the ending .csv, .csv.gz or .parquet. Raises RecstoreError; existing lists then stay.
    """
    with ListsRun(url, settings, name, "lists", reporter, serves=False) as run:
        return _make(run, _wanted(run.connection, run.recommender, into, k, users=users))


def similar_all(
    url: str,
    settings: Settings,
    name: str,
    into: str | Path,
    *,
    k: int = 20,
    min_users: int = MIN_USERS,
    reporter: Reporter | None = None,
) -> Made:
    """Write the answers of `similar_items(item, k, min_users)` for every item; otherwise like `recommend_all`."""
    with ListsRun(url, settings, name, "lists", reporter, serves=False) as run:
        return _make(run, _wanted(run.connection, run.recommender, into, k, similar=True, min_users=min_users))


def write_defined(
    url: str,
    settings: Settings,
    name: str,
    *,
    reporter: Reporter | None = None,
    requested: bool = False,
    time_limit: float | None = None,
) -> list[Made]:
    """Write the tables that the recommender's definition names; `requested`, `time_limit`: see `Run`. Raises InvalidInput if
    it names none."""
    with ListsRun(url, settings, name, "lists", reporter, requested=requested, time_limit=time_limit) as run:
        defined = run.recommender.definition.lists
        named = [
            (into, into == defined.similar_into) for into in (defined.recommend_into, defined.similar_into) if into
        ]
        if not named:
            raise InvalidInput(
                f"The definition of {name!r} names no table for lists: recstore alter {name} --recommend-into schema.table"
            )
        wanted = [_wanted(run.connection, run.recommender, into, defined.k, similar=similar) for into, similar in named]
        made = [_make(run, each) for each in wanted]
        run.outcome = " ".join(
            f"{counted(each.lists, 'list')} of generation {each.generation} in {each.into}." for each in made
        )
        return made


def plan(
    url: str,
    name: str,
    into: str | Path,
    *,
    similar: bool = False,
    k: int = 20,
    users: str | None = None,
    min_users: int = MIN_USERS,
) -> ListsPlan:
    """Return what `recommend_all` or `similar_all` would do, and raise what they raise. Changes nothing."""
    with closing(connect(url)) as connection, plain_errors(f"planning lists of {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        wanted = _wanted(connection, recommender, into, k, similar=similar, users=users, min_users=min_users)
        with reading.snapshot(url, recommender, "recstore:lists", connection.info.user) as snapshot:
            live, items = snapshot.live, _items(snapshot, wanted)
        statements, owners = [], int(items.present.sum()) if similar else live.users
        if not similar:
            seen = live.seen_published
            select = reading.users_select(recommender, live.generation, seen_published=seen, query=wanted.query)
            statements.append(select.strip())
        if wanted.query is not None:
            owners = reading.expected_users(connection, wanted.query)
        if isinstance(wanted.target, ListTable):
            statements += tables.planned(wanted.target, wanted.shape, wanted.comment(recommender, live.generation))
        listed = items.eligible & items.present if similar else items.eligible
        return ListsPlan(wanted.into, live.generation, owners, int(listed.sum()), tuple(statements))


def _wanted(
    connection: Connection,
    recommender: Registered,
    into: str | Path,
    k: int,
    *,
    similar: bool = False,
    users: str | None = None,
    min_users: int = MIN_USERS,
) -> _Wanted:
    """Check the options and the target. Raises InvalidInput, ListTableRefused, ListsNotWritten, PermissionDenied."""
    shape = shapes.similar(recommender) if similar else shapes.recommended(recommender)
    query = None if users is None else reading.checked_query(connection, recommender, users)
    if k < 1:
        raise InvalidInput(f"k is {k}: the length of a list must be at least 1.")
    target: ListTable | Path
    if isinstance(into, Path) or output.is_file(into):
        target = output.check_place(str(into))
    else:
        target = tables.look_at(connection, recommender.name, into, shape)
    return _Wanted(shape, str(into), target, k, query, min_users)


def _make(run: ListsRun, wanted: _Wanted) -> Made:
    """Write one kind of lists, from the snapshot to the swap."""
    began = time.perf_counter()
    with ExitStack() as reads:
        role = run.connection.info.user
        run.recommender = registry.get(run.connection, run.name)  # altered or resized, maybe, since the lists before
        snapshot = reads.enter_context(reading.snapshot(run.url, run.recommender, run.application_name, role))
        with run.staged("read") as details:
            items = _items(snapshot, wanted)
            generation = snapshot.live.generation
            run.generation = Generation(run.recommender, generation)
            details |= {"generation": generation, "items": len(items.ids)}
            details["summary"] = f"generation {generation}, {len(items.ids):,} items"
        write = _file if isinstance(wanted.target, Path) else _table
        with write(run, wanted, generation, items) as add:
            with run.staged(wanted.shape.command) as details:
                owners, rows = _score(run, snapshot, wanted, items, add)
                details |= {"lists": owners, "rows": rows}
                details["summary"] = f"{counted(rows, 'row')} in {counted(owners, 'list')}"
            reads.close()  # from here on the generation may be pruned; vacuum waits for the new table's own transaction
    run.outcome = f"{counted(owners, 'list')} of generation {generation} in {wanted.into}."
    return Made(run.number, generation, wanted.into, owners, rows, round(time.perf_counter() - began, 3))


def _items(snapshot: Snapshot, wanted: _Wanted) -> Items:
    items = snapshot.items("embedding" if wanted.similar else "preference")
    if wanted.similar:
        items.eligible[items.users < wanted.min_users] = False
    return items


def _score(run: ListsRun, snapshot: Snapshot, wanted: _Wanted, items: Items, add: Add) -> tuple[int, int]:
    """Compute and add every list; return the number of lists and of rows. While threads score a block, the previous one is
    written and the next one read."""
    live = snapshot.live
    if wanted.similar:
        blocks, total = reading.item_blocks(items), int(items.present.sum())
        scoring = Scoring(items, wanted.k, run.settings.threads, most=1.0)
    else:
        blocks, total = snapshot.users(items, wanted.query), live.users
        if wanted.query is not None:
            total = reading.expected_users(run.connection, wanted.query)
        scoring = Scoring(items, wanted.k, run.settings.threads, popular_users=live.users)
    done = rows = owners = 0
    began = time.monotonic()
    with threadpool_limits(1, "blas"), scoring:
        for pending, _ in pairwise(chain(map(scoring.begin, blocks), (None,))):
            assert pending is not None
            listed = pending.lists()
            add(pending.block, listed)
            done += len(pending.block)
            rows += len(listed)
            owners += int((listed.rank == 1).sum())
            speed = done / max(time.monotonic() - began, 1e-3)
            left = f", {duration((total - done) / speed)} left" if speed and total > done else ""
            run.reporter.progress(wanted.shape.command, done, max(done, total), f"{speed:,.0f} lists a second{left}")
    return owners, rows


@contextmanager
def _table(run: ListsRun, wanted: _Wanted, generation: int, items: Items) -> Iterator[Add]:
    """Yield a function that adds rows to a new table, which replaces the old one at the end."""
    assert isinstance(wanted.target, ListTable)
    shape = wanted.shape
    temporary = f"recstore_lists_{run.number}"
    with tables.filling(run.url, run.application_name, wanted.target, shape, temporary) as writer:
        with writer.copying() as write:
            yield lambda block, rows: write(shape.copied(items, block, rows, generation), len(rows), None)
        with run.staged("index") as details:
            writer.index(wanted.comment(run.recommender, generation), run.settings.index_memory)
            details["summary"] = f"primary key ({', '.join(shape.key)}), statistics"
        with run.staged("swap") as details:
            writer.swap(run.settings, run.recommender)
            details["summary"] = f"{wanted.target} is that of generation {generation}"
    run.wal_elsewhere += writer.wal_bytes


@contextmanager
def _file(run: ListsRun, wanted: _Wanted, generation: int, items: Items) -> Iterator[Add]:  # noqa: ARG001
    """Yield a function that adds rows to a new file, which replaces the old one at the end."""
    assert isinstance(wanted.target, Path)
    batch = wanted.shape.batches(items, generation)
    with output.writing(wanted.target, wanted.shape.arrow) as write:
        yield lambda block, rows: write(batch(block, rows))
