"""The tables of schema `recstore_private` as SQLAlchemy sees them, so that `alembic check` finds drift.

The migrations' SQL is what creates them; run-time SQL is in `sql/`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

PRIVATE_SCHEMA = "recstore_private"

metadata = sa.MetaData(
    schema=PRIVATE_SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)


def _timestamp(name: str, *, nullable: bool = True, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def _json(name: str, default: str | None = None) -> sa.Column[object]:
    return sa.Column(
        name, pg.JSONB, nullable=default is None, server_default=sa.text(f"'{default}'::jsonb") if default else None
    )


def _recommender_id(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "recommender_id",
        sa.Integer,
        sa.ForeignKey("recommenders.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
        autoincrement=False,
    )


recommenders = sa.Table(
    "recommenders",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("definition", pg.JSONB, nullable=False),
    sa.Column("user_type", sa.Text, nullable=False),
    sa.Column("item_type", sa.Text, nullable=False),
    sa.Column("vector_type", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("objects_version", sa.Integer, nullable=False),
    _json("object_digests", "{}"),
    _timestamp("created_at", nullable=False, now=True),
    sa.Column("created_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
    _timestamp("scheduled_at", nullable=False, now=True),
    sa.Column("held_out_key", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
    _timestamp("lists_at", nullable=False, now=True),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _recommender_id(),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="running"),
    sa.Column("generation", sa.BigInteger),
    _json("stages", "[]"),
    _json("warnings", "[]"),
    sa.Column("device", sa.Text),
    _json("versions", "{}"),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("trace", sa.Text),
    _timestamp("started_at", nullable=False, now=True),
    _timestamp("finished_at"),
    _json("progress"),
    sa.Column("outcome", sa.Text),
    sa.Column("wal_bytes", sa.BigInteger),
    _timestamp("deadline"),
    sa.Index("ix_runs_recommender_id", "recommender_id", "run"),
    sa.Index("ix_runs_running", "recommender_id", postgresql_where=sa.text("state = 'running'")),
)

_OPEN = "state IN ('waiting', 'sent', 'running')"
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("request", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("recommender", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("requested_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("requested_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
    sa.Column(
        "application_name",
        sa.Text,
        nullable=False,
        server_default=sa.text("current_setting('application_name'::text)"),
    ),
    sa.Column("task_id", sa.Text),
    _timestamp("not_before"),
    _timestamp("sent_at"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("run", sa.BigInteger),
    sa.Column("outcome", sa.Text),
    _timestamp("finished_at"),
    sa.Column("force", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_requests_open", "recommender", "job", postgresql_where=sa.text(_OPEN)),
    sa.Index("ix_requests_ready", "run", postgresql_where=sa.text("state = 'ready'")),
    sa.Index("ix_requests_run", "run", postgresql_where=sa.text("run IS NOT NULL")),
    sa.Index("ix_requests_task_id", "task_id", postgresql_where=sa.text("task_id IS NOT NULL")),
)

dispatches = sa.Table(
    "dispatches",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    _timestamp("dispatched_at", nullable=False),
)

generations = sa.Table(
    "generations",
    metadata,
    sa.Column("generation", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _recommender_id(),
    sa.Column("state", sa.Text, nullable=False, server_default="attached"),
    sa.Column("run", sa.BigInteger),
    sa.Column("vector_type", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    _json("definition"),
    _json("snapshot"),
    _json("filters"),
    _json("confidence"),
    _json("training"),
    sa.Column("factors", sa.Integer),
    sa.Column("users", sa.Integer),
    sa.Column("items", sa.Integer),
    sa.Column("collapsed_items", sa.Integer),
    sa.Column("max_item_length", sa.Double),
    sa.Column("mean_preference", pg.ARRAY(sa.REAL)),
    sa.Column("seen_published", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("recommend_ef", sa.Integer),
    sa.Column("similar_ef", sa.Integer),
    sa.Column("users_ef", sa.Integer),
    _json("calibration"),
    sa.Column("barrier", sa.Text),
    _json("barrier_transactions"),
    sa.Column("barrier_xid", sa.Text),
    sa.Column("reason", sa.Text),
    _timestamp("created_at", nullable=False, now=True),
    _timestamp("ready_at"),
    _json("held_out"),
    _json("fold_in"),
    _json("metrics"),
    sa.Index("ix_generations_recommender_id", "recommender_id", "generation"),
)

pointers = sa.Table(
    "pointers",
    metadata,
    _recommender_id(primary_key=True),
    sa.Column("generation", sa.BigInteger, sa.ForeignKey("generations.generation", ondelete="CASCADE")),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    _timestamp("flipped_at"),
)

flips = sa.Table(
    "flips",
    metadata,
    sa.Column("flip", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _recommender_id(),
    sa.Column("from_generation", sa.BigInteger),
    sa.Column("to_generation", sa.BigInteger, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("run", sa.BigInteger),
    _timestamp("flipped_at", nullable=False, now=True),
    sa.Column("flipped_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
    sa.Index("ix_flips_recommender_id", "recommender_id", "to_generation", "flipped_at"),
    sa.Index("ix_flips_from_generation", "from_generation", "flipped_at"),
)

studies = sa.Table(
    "studies",
    metadata,
    sa.Column("study", sa.Integer, sa.Identity(always=True), primary_key=True),
    _recommender_id(),
    sa.Column("state", sa.Text, nullable=False, server_default="running"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("options", pg.JSONB, nullable=False),
    sa.Column("definition", pg.JSONB, nullable=False),
    sa.Column("split", sa.Text, nullable=False),
    sa.Column("snapshot", pg.JSONB, nullable=False),
    sa.Column("scales", pg.JSONB, nullable=False),
    sa.Column("parallel", sa.Integer, nullable=False, server_default="0"),
    sa.Column("sent", sa.Integer, nullable=False, server_default="0"),
    _timestamp("sent_at"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("best", sa.Integer),
    _json("evaluation"),
    sa.Column("outcome", sa.Text),
    _timestamp("created_at", nullable=False, now=True),
    sa.Column("created_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
    _timestamp("finished_at"),
    _timestamp("adopted_at"),
    sa.Index("ix_studies_recommender_id", "recommender_id", "study"),
    sa.Index("ix_studies_running", "recommender_id", postgresql_where=sa.text("state = 'running'")),
)


def _study(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "study",
        sa.Integer,
        sa.ForeignKey("studies.study", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
        autoincrement=False,
    )


trials = sa.Table(
    "trials",
    metadata,
    sa.Column("trial", sa.Integer, sa.Identity(always=True), primary_key=True),
    _study(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="running"),
    sa.Column("parameters", pg.JSONB, nullable=False),
    _json("curve", "[]"),
    sa.Column("value", sa.Double),
    sa.Column("iterations", sa.Integer),
    sa.Column("seconds", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
    sa.Column("error", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    _timestamp("finished_at"),
    sa.UniqueConstraint("study", "number"),
)

study_data = sa.Table(
    "study_data",
    metadata,
    _study(primary_key=True),
    sa.Column("chunk", sa.Integer, nullable=False, primary_key=True, autoincrement=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
