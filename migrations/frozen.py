"""Read the SQL of released migrations from `sql/`, and refuse it if it differs from its released checksum."""

import hashlib
from importlib import resources

from alembic import context, op

CHECKSUMS = "checksums.txt"


def checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def released_checksums() -> dict[str, str]:
    """Return file name -> sha256, as listed in `sql/checksums.txt`."""
    lines = resources.files(__package__).joinpath("sql", CHECKSUMS).read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def read_sql(name: str) -> str:
    text = resources.files(__package__).joinpath("sql", name).read_text()
    if released_checksums().get(name) != checksum(text):
        raise RuntimeError(
            f"migrations/sql/{name} differs from its released checksum; a released migration never changes"
        )
    return text


def execute_sql(name: str) -> None:
    """Execute a file, or print it in Alembic's offline mode."""
    if context.is_offline_mode():
        context.get_context().impl.static_output(read_sql(name).rstrip())
        return
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(read_sql(name))  # without parameters, so that a percent sign is one
