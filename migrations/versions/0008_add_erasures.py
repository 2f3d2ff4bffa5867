"""Add erasures: who was removed from a recommender's generations, and when."""

from recstore.migrations.frozen import execute_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0008_up.sql")


def downgrade() -> None:
    execute_sql("0008_down.sql")
