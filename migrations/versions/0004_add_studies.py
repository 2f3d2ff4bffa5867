"""Add studies: searches for good hyperparameters, their trials and the interactions they work on."""

from recstore.migrations.frozen import execute_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0004_up.sql")


def downgrade() -> None:
    execute_sql("0004_down.sql")
