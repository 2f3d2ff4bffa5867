"""A disk that is really full: the live generation serves on, and what a failed training wrote is given back at once."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Database, administration, drop_database
from support import look

from recstore.definition import Publication
from recstore.embedded import Server
from recstore.errors import RecstoreError

pytestmark = pytest.mark.campaign

SIZE = 256 << 20
"""Bytes of the disk."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory, mounted for the test."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a disk, and not in every container")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def crowded(server: Server, shop_template: str, disk: Path) -> Iterator[Database]:
    """A database on that disk, with a live generation."""
    connection = administration(server)
    connection.execute(f"CREATE TABLESPACE crowded LOCATION '{disk}'")
    connection.execute(f"CREATE DATABASE crowded TEMPLATE {shop_template} TABLESPACE crowded STRATEGY FILE_COPY")
    connection.execute("GRANT CREATE ON DATABASE crowded TO worker")
    database = Database(server, "crowded")
    database.connect("postgres").execute(
        "INSERT INTO shop.views SELECT 1000 + n / 5, n % 120 + 1, 1 FROM generate_series(1, 100000) n; ANALYZE shop.views"
    )
    database.create(publication=Publication(search="hnsw"))
    assert database.retrain().live
    yield database
    drop_database(database)
    connection.execute("DROP TABLESPACE crowded")


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_bsize


LEFT = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'retail'::regnamespace AND c.relname ~ '^_(items|users|seen)_[0-9]+'
        AND pg_relation_size(c.oid) > 16384 AND substring(c.relname FROM '[0-9]+')::bigint <> retail.generation()
"""
"""Tables and indexes of other generations than the live one that are not empty."""


def error_of_a_training(database: Database) -> str | None:
    try:
        database.retrain(force=True)
    except RecstoreError as error:
        return error.message
    return None


def test_a_training_on_a_full_disk_gives_its_space_back(crowded: Database, disk: Path) -> None:
    """With ever more room it fails in ever later stages, until there is enough."""
    question = "SELECT * FROM retail.recommend(1, 10)"
    expected, filler, stages = look(crowded, question), disk / "filler", set()
    for room in (0, *range(6 << 20, 64 << 20, 256 << 10)):
        filler.write_bytes(bytes(max(0, free(disk) - room)))
        if (refused := error_of_a_training(crowded)) is None:
            break
        stages |= set(re.findall(r"in stage '(\w+)'", refused))
        assert "No space left on device" in refused
        assert (look(crowded, LEFT), look(crowded, question)) == ([], expected), refused
        filler.unlink()
    assert {"load", "index"} <= stages
    assert look(crowded, "SELECT retail.generation() > 1 AS new") == [{"new": True}]
