"""Create the registry: recommenders, their generations, the pointer to the live one, flips and runs."""

from recstore.migrations.frozen import execute_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0001_up.sql")


def downgrade() -> None:
    execute_sql("0001_down.sql")
