"""The golden dump of recstore's own schemas, `migrations/schema.sql`: `make schema` renews it, a test compares it."""

import os
import re
import subprocess
from pathlib import Path

from recstore.config import Settings
from recstore.embedded import temporary_server, tool_path
from recstore.operations import schema
from recstore.postgres.connection import connect

VERSION = 18
GOLDEN = Path(__file__).parents[1] / "migrations" / "schema.sql"


def dump(url: str) -> str:
    """Return recstore's own schemas as SQL, without what varies: versions, tokens, owners, settings, headings."""
    command = [
        str(tool_path(VERSION, "pg_dump")),
        "--schema-only",
        "--no-owner",
        "--schema=recstore*",
        f"--dbname={url}",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.defpath}).stdout
    text = re.sub(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    with temporary_server(VERSION) as server:
        url = server.url_of("postgres")
        with connect(url) as connection:
            schema.upgrade(connection, url, Settings())
        GOLDEN.write_text(dump(url))
