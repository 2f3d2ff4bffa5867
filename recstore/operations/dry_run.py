"""What a change would do, as SQL, and nothing of it done: for each change of recommenders and of recstore's own schema.

Every function returns statements in the order in which they would be executed, with BEGIN and COMMIT where several belong
together; a line that begins with -- is a remark. Nobody waits for any of this, and nothing is changed (see `rehearsal`). Raises
what the change itself would raise, as far as it can be known. Not shown is what a run writes about itself in recstore.runs.
"""

from psycopg import errors as pg

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition
from recstore.operations import schema
from recstore.operations.rehearsal import Rehearsal, rehearsing
from recstore.postgres.connection import Connection, plain_errors
from recstore.publication import flipping, generations
from recstore.runs import lock_keys
from recstore.sql import queries, schema_revision
from recstore.sql.objects import OUTER_VIEWS, Registered

Statements = list[str]


def create(connection: Connection, settings: Settings, name: str, definition: Definition) -> Statements:
    """Of making a recommender with its first, empty generation."""
    with rehearsing(connection) as (stand_in, noted):
        recommender = registry.create(stand_in, name, definition)
        generations.attach(stand_in, _once(settings), recommender)
        return noted.statements


def alter(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    definition: Definition,
    *,
    readers_may_fail: bool = False,
) -> Statements:
    """Of storing another definition; of a resize before that, where it has more factors than there is room for."""
    factors = definition.hyperparameters.factors or 0
    with rehearsing(connection) as (stand_in, noted):
        if factors > recommender.dimensions:
            registry.check_definition(stand_in, recommender, definition)
            recommender = _resize(stand_in, noted, settings, recommender, factors)
        registry.alter(stand_in, _once(settings), recommender, definition, readers_may_fail=readers_may_fail)
        return noted.statements


def resize(connection: Connection, settings: Settings, recommender: Registered, factors: int) -> Statements:
    """Of making room for more factors than the dimensions fixed at creation. Raises ResizeUnfinished."""
    with rehearsing(connection) as (stand_in, noted):
        _resize(stand_in, noted, settings, recommender, factors)
        return noted.statements


def _resize(
    stand_in: Connection, noted: Rehearsal, settings: Settings, recommender: Registered, factors: int
) -> Registered:
    settings = _once(settings)
    _clean(stand_in, recommender)
    _prune(stand_in, noted, settings, recommender, recommender.definition.publication.keep)
    vector_type, dimensions = registry.storage_for(recommender.definition, factors, fixed=False)
    for name in OUTER_VIEWS if vector_type != recommender.vector_type else ():
        noted.expect_unfit(recommender.relation(name))
    generations.resize(stand_in, settings, recommender, vector_type, dimensions)
    resized = registry.get(stand_in, recommender.name)
    generations.next_of(stand_in, settings, resized)
    return resized


def drop(connection: Connection, settings: Settings, recommender: Registered, *, cascade: bool = False) -> Statements:
    """Of removing a recommender. Raises DependentObjects as the removal would."""
    with rehearsing(connection) as (stand_in, noted):
        registry.drop(stand_in, _once(settings), recommender, cascade=cascade)
        return _running(connection, recommender) + noted.statements


def grant_reader(connection: Connection, recommender: Registered, role: str, *, people: bool = False) -> Statements:
    """Of letting a role read."""
    with rehearsing(connection) as (stand_in, _):
        return registry.grant_reader(stand_in, recommender, role, people=people)


def roll_back(connection: Connection, recommender: Registered, to: int | None = None) -> Statements:
    """Of making an earlier generation live again."""
    with rehearsing(connection) as (stand_in, noted), plain_errors(f"rolling back {recommender.name!r}"):
        flipping.roll_back(stand_in, recommender, to)
        return noted.statements


def publish(connection: Connection, settings: Settings, recommender: Registered, *, now: bool = False) -> Statements:
    """Of making the generation live that is ready, of attaching the next and removing old ones; only remarks where sessions
    hold it up and `now` is not said."""
    settings = _once(settings)
    with rehearsing(connection) as (stand_in, noted), plain_errors(f"publishing {recommender.name!r}"):
        generation = flipping.ready_generation(stand_in, recommender)
        waits = [f"-- generation {generation} waits for {who}" for who in flipping.look_again(stand_in, recommender)]
        if waits and not now:
            return waits
        flipping.flip(stand_in, recommender, generation, "publish", None)
        generations.next_of(stand_in, settings, recommender)
        _prune(stand_in, noted, settings, recommender, recommender.definition.publication.keep)
        return _running(connection, recommender) + waits + noted.statements


def prune(connection: Connection, settings: Settings, recommender: Registered, keep: int | None = None) -> Statements:
    """Of removing old generations, with a remark for each that stays for now."""
    keep = keep or recommender.definition.publication.keep
    running = _running(connection, recommender)
    with rehearsing(connection) as (stand_in, noted), plain_errors(f"pruning {recommender.name!r}"):
        if not running:
            _clean(stand_in, recommender)
        _prune(stand_in, noted, _once(settings), recommender, keep)
        return running + noted.statements


def _clean(stand_in: Connection, recommender: Registered) -> None:
    """As a run begins: what dead runs left half built is removed with what is old."""
    for row in generations.all_of(stand_in, recommender):
        if row["state"] == "building":
            generations.mark_pruning(stand_in, recommender, row["generation"], f"run {row['run']} did not finish it")


def _prune(stand_in: Connection, noted: Rehearsal, settings: Settings, recommender: Registered, keep: int) -> None:
    done = generations.prune(stand_in, settings, recommender, keep, 0)
    for generation, blockers in done.postponed.items():
        noted.note(f"-- generation {generation} stays until {'; '.join(map(str, blockers))} has ended")
    for generation, seconds in done.retained.items():
        noted.note(f"-- generation {generation} stays {seconds:.0f} s more (RECSTORE_RETENTION)")


def upgrade(connection: Connection, settings: Settings) -> Statements:
    """Of bringing the database to this version: the migrations, then each recommender's functions and views."""
    with plain_errors("upgrading", connection):
        statements = []
        if connection.execute(queries.query("vector_extension")).fetchone() is None:
            statements.append("CREATE EXTENSION IF NOT EXISTS vector;")
        script = schema.statements(connection, "head")
        statements += [script] if script else []
        try:
            recommenders = registry.all_registered(connection) if schema_revision.current(connection) else []
        except pg.UndefinedColumn:
            return [*statements, "-- then the functions and views of each recommender, where this version's differ"]
        for recommender in recommenders:
            with rehearsing(connection) as (stand_in, noted):
                schema.upgrade_objects(stand_in, _once(settings), recommender)
                statements += noted.statements
        return statements


def downgrade(connection: Connection, revision: str) -> Statements:
    """Of going back to an earlier revision of recstore's own schema."""
    with plain_errors("downgrading", connection):
        script = schema.statements(connection, revision, down=True)
        return [script] if script else []


def _once(settings: Settings) -> Settings:
    """Who holds a lock is told at once."""
    return settings.model_copy(update={"lock_attempts": 1})


def _running(connection: Connection, recommender: Registered) -> Statements:
    """A remark where a run is in progress, which would refuse the change for now."""
    holder = connection.execute(queries.query("lock_holder"), lock_keys(recommender)).fetchone()
    if holder is None:
        return []
    who = f"{holder['application_name'] or 'another role'}, server process {holder['pid']}"
    return [f"-- refused for now: another run of {recommender.name!r} is in progress ({who})"]
