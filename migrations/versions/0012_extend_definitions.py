"""Extend definitions by settings of spectral models; downgrading leaves them out."""

from recstore.migrations.frozen import execute_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0012_up.sql")


def downgrade() -> None:
    execute_sql("0012_down.sql")
