"""The jobs: every list made in one snapshot and written to a table or a file.

    snapshot -> items -> blocks of owners -> scores -> the k best -> rows -> a new table, or a file -> in the old one's place

They only read the recommender, so they run beside a training and hold it up in nothing; a generation that goes live meanwhile
is that of the next lists.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from recstore import registry
from recstore.config import Settings
from recstore.errors import InvalidInput
from recstore.lists import output, reading, shapes, tables
from recstore.lists.blocks import Block, Items, Lists, Pending, Scoring
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
"""As similar_items() has it."""


@dataclass(frozen=True)
class Made:
    """Lists that were written: how many, and the rows in them."""

    run: int
    generation: int
    into: str
    lists: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What would be done: by which SQL, from how many owners of lists (users or items) and items."""

    into: str
    generation: int
    owners: int
    items: int
    statements: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """Lists to be made, checked against the database."""

    shape: Shape
    into: str
    target: ListTable | Path
    k: int
    query: str | None = None  # users, where not all
    min_users: int = MIN_USERS

    @property
    def similar(self) -> bool:
        return self.shape.command == "similar-all"

    def comment(self, recommender: Registered, generation: int) -> str:
        """What stands at the table, and says that it may be replaced."""
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
    """Writes what `recommend(user, k)` returns, by exact scan, for every user of the live generation, or for those that the
    SELECT `users` names in its first column, whom it need not know. `into` is schema.table, or a file with the ending .csv,
    .csv.gz or .parquet. Raises RecstoreError, and then what was there stays."""
    with ListsRun(url, settings, name, "lists", reporter, serves=False) as run:
        return _make(run, _recommending(run.connection, run.recommender, into, k, users))


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
    """Writes what `similar_items(item, k, min_users)` returns for every item; otherwise as `recommend_all`."""
    with ListsRun(url, settings, name, "lists", reporter, serves=False) as run:
        return _make(run, _likening(run.connection, run.recommender, into, k, min_users))


def write_defined(
    url: str,
    settings: Settings,
    name: str,
    *,
    reporter: Reporter | None = None,
    requested: bool = False,
    time_limit: float | None = None,
) -> list[Made]:
    """Writes the tables that the recommender's definition names. With `requested` on behalf of those who ask for it (see
    `Run`). Raises InvalidInput where it names none."""
    with ListsRun(url, settings, name, "lists", reporter, requested=requested, time_limit=time_limit) as run:
        defined = run.recommender.definition.lists
        if not (defined.recommend_into or defined.similar_into):
            raise InvalidInput(
                f"The definition of {name!r} names no table for lists: recstore alter {name} --recommend-into schema.table"
            )
        wanted = []  # all are looked at before any is made
        if defined.recommend_into:
            wanted.append(_recommending(run.connection, run.recommender, defined.recommend_into, defined.k, None))
        if defined.similar_into:
            wanted.append(_likening(run.connection, run.recommender, defined.similar_into, defined.k, MIN_USERS))
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
) -> Plan:
    """What `recommend_all` or `similar_all` would do; changes nothing, and refuses what they refuse."""
    connection = connect(url)
    try:
        with plain_errors(f"planning lists of {name!r}", connection):
            require_current(connection)
            recommender = registry.get(connection, name)
            if similar:
                wanted = _likening(connection, recommender, into, k, min_users)
            else:
                wanted = _recommending(connection, recommender, into, k, users)
            return _planned(connection, url, recommender, wanted)
    finally:
        connection.close()


def _recommending(
    connection: Connection, recommender: Registered, into: str | Path, k: int, users: str | None
) -> _Wanted:
    shape = shapes.recommended(recommender)
    query = None if users is None else reading.checked_query(connection, recommender, users)
    return _Wanted(shape, str(into), _target(connection, recommender, into, k, shape), k, query)


def _likening(connection: Connection, recommender: Registered, into: str | Path, k: int, min_users: int) -> _Wanted:
    shape = shapes.similar(recommender)
    return _Wanted(shape, str(into), _target(connection, recommender, into, k, shape), k, min_users=min_users)


def _target(
    connection: Connection, recommender: Registered, into: str | Path, k: int, shape: Shape
) -> ListTable | Path:
    if k < 1:
        raise InvalidInput(f"k is the length of a list and must be at least 1, not {k}.")
    if isinstance(into, Path) or output.is_file(into):
        return output.check_place(str(into))
    return tables.look_at(connection, recommender.name, into, shape)


def _make(run: ListsRun, wanted: _Wanted) -> Made:
    """One kind of lists, from the snapshot to the swap."""
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
                details |= {
                    "lists": owners,
                    "rows": rows,
                    "summary": f"{counted(rows, 'row')} in {counted(owners, 'list')}",
                }
            reads.close()  # what was read may be pruned from here on; vacuum waits for the new table's own transaction
    run.outcome = f"{counted(owners, 'list')} of generation {generation} in {wanted.into}."
    return Made(run.number, generation, wanted.into, owners, rows, round(time.perf_counter() - began, 3))


Add = Callable[[Block, Lists], None]


def _items(snapshot: Snapshot, wanted: _Wanted) -> Items:
    items = snapshot.items("embedding" if wanted.similar else "preference")
    if wanted.similar:
        items.eligible[items.users < wanted.min_users] = False
    return items


def _score(run: ListsRun, snapshot: Snapshot, wanted: _Wanted, items: Items, add: Add) -> tuple[int, int]:
    """Makes and adds every list; returns how many lists and rows. While a block is scored, the one before it is written and
    the next one read."""
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

    def write(pending: Pending) -> None:
        nonlocal done, rows, owners
        lists = pending.lists()
        add(pending.block, lists)
        done += len(pending.block)
        rows += len(lists)
        owners += int((lists.rank == 1).sum())
        run.reporter.progress(
            wanted.shape.command, done, max(done, total), _left(done, total, time.monotonic() - began)
        )

    with threadpool_limits(1, "blas"), scoring:
        before: Pending | None = None
        for block in blocks:
            pending = scoring.begin(block)
            if before:
                write(before)
            before = pending
        if before:
            write(before)
    return owners, rows


def _left(done: int, total: int, seconds: float) -> str:
    """How fast, and for how long still."""
    speed = done / max(seconds, 1e-3)
    left = f", {duration((total - done) / speed)} left" if speed and total > done else ""
    return f"{speed:,.0f} lists a second{left}"


@contextmanager
def _table(run: ListsRun, wanted: _Wanted, generation: int, items: Items) -> Iterator[Add]:
    """Takes lists into a new table, which then takes the place of the old one."""
    assert isinstance(wanted.target, ListTable)
    shape = wanted.shape
    beside = f"recstore_lists_{run.number}"
    with tables.filling(run.url, run.application_name, wanted.target, shape, beside) as writer:
        with writer.copying() as write:

            def add(block: Block, lists: Lists) -> None:
                write(shape.copied(items, block, lists, generation), len(lists), None)

            yield add
        with run.staged("index") as details:
            writer.index(wanted.comment(run.recommender, generation), run.settings.index_memory)
            details["summary"] = f"primary key ({', '.join(shape.key)}), statistics"
        with run.staged("swap") as details:
            writer.swap(run.settings, run.recommender)
            details["summary"] = f"{wanted.target} is that of generation {generation}"
    run.wal_elsewhere += writer.wal_bytes


@contextmanager
def _file(run: ListsRun, wanted: _Wanted, generation: int, items: Items) -> Iterator[Add]:  # noqa: ARG001
    assert isinstance(wanted.target, Path)
    batch = wanted.shape.batches(items, generation)
    with output.writing(wanted.target, wanted.shape.arrow) as write:

        def add(block: Block, lists: Lists) -> None:
            write(batch(block, lists))

        yield add


def _planned(connection: Connection, url: str, recommender: Registered, wanted: _Wanted) -> Plan:
    with reading.snapshot(url, recommender, "recstore:lists", connection.info.user) as snapshot:
        live, items = snapshot.live, _items(snapshot, wanted)
    statements = []
    owners = int(items.present.sum()) if wanted.similar else live.users
    if not wanted.similar:
        select = reading.users_select(
            recommender, live.generation, seen_published=live.seen_published, query=wanted.query
        )
        statements.append(select.strip())
        if wanted.query is not None:
            owners = reading.expected_users(connection, wanted.query)
    if isinstance(wanted.target, ListTable):
        table, comment = wanted.target, wanted.comment(recommender, live.generation)
        beside = f"{table.quoted_schema}.recstore_lists_N"
        statements.append(tables.created(beside, wanted.shape))
        statements.append(f"COPY {beside} ({', '.join(wanted.shape.names)}) FROM STDIN (FORMAT binary, FREEZE)")
        statements += tables.described(beside, table, wanted.shape, comment)
        statements += tables.swapped(beside, table, wanted.shape)
    listed = items.eligible & items.present if wanted.similar else items.eligible
    return Plan(wanted.into, live.generation, owners, int(listed.sum()), tuple(statements))
