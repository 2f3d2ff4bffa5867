"""${message}"""

from recstore.migrations.frozen import execute_sql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("${up_revision}_up.sql")


def downgrade() -> None:
    execute_sql("${up_revision}_down.sql")
