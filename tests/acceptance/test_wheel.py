"""The package as it is published: a wheel, in an empty environment that holds its locked dependencies, outside the
checkout, does the main job; and nothing else lands in site-packages."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Database

from recstore.embedded import temporary_broker

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "recstore"
    run("git", "-c", "safe.directory=*", "clone", "-q", ROOT, source, cwd=folder)
    run(
        "cp",
        "-a",
        *(ROOT / name for name in ("recstore", "migrations", "worker", "pyproject.toml", "README.md")),
        source,
        cwd=folder,
    )
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def run_a_worker(celery: Path, ask: list[object], database: Database, folder: Path) -> None:
    """A worker of the installed package serves a request."""
    with temporary_broker() as broker:
        servers = {
            "RECSTORE_DATABASE_URL": database.url,
            "RECSTORE_BROKER_URL": broker.url,
            "RECSTORE_METRICS_PORT": "0",
        }
        worker = subprocess.Popen(
            [celery, "-A", "recstore.worker", "worker", "--concurrency", "1"],
            cwd=folder,
            env=dict(os.environ) | servers,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run(*ask, "request", "reindex", "retail", "--wait", "--timeout", "60", cwd=folder)
        finally:
            worker.terminate()
            assert worker.wait(60) == 0


def test_only_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"recstore", "recstore-0.1.0.dist-info"}
    for needed in (
        "recstore/py.typed",
        "recstore/sql/requests.sql",
        "recstore/sql/objects/functions.sql",
        "recstore/migrations/sql/0001_up.sql",
        "recstore/migrations/sql/checksums.txt",
        "recstore/worker/tasks.py",
        "recstore/demo/data/online_retail_2010.views.csv.gz",
        "recstore/demo/data/README.md",
    ):
        assert needed in names


def test_an_installed_wheel_does_the_main_job(wheel: Path, tmp_path: Path, empty: Database) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    # by uv, which is quicker; `make` itself installs by plain pip
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", "env/bin/python"]
    run(*install, "--require-hashes", "-r", ROOT / "requirements/core.txt", cwd=tmp_path)
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    recstore = tmp_path / "env/bin/recstore"
    where = run(tmp_path / "env/bin/python", "-c", "import recstore; print(recstore.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    application = empty.connect("application")
    application.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.views AS SELECT u AS user_id, (u * 7 + n * n) % 40 AS item_id, 1 AS value"
        " FROM generate_series(1, 60) u, generate_series(1, 8) n;"
        " GRANT USAGE ON SCHEMA shop TO worker; GRANT SELECT ON shop.views TO worker"
    )
    ask = [recstore, "--database", empty.url]
    run(*ask, "db", "upgrade", cwd=tmp_path)
    run(*ask, "db", "check", cwd=tmp_path)
    run(*ask, "create", "retail", "--table", "shop.views", "--value", "value", "--factors", "8", cwd=tmp_path)
    run(*ask, "retrain", "retail", cwd=tmp_path)
    assert "trained" in run(*ask, "recommend", "retail", "1", "-k", "3", cwd=tmp_path)
    run_a_worker(tmp_path / "env/bin/celery", ask, empty, tmp_path)
    run(*ask, "drop", "retail", "--yes", cwd=tmp_path)
    run(*ask, "db", "downgrade", "base", "--yes", cwd=tmp_path)
    # the core installs without the embedded servers, and says so when they are asked for
    started = subprocess.run([recstore, "start"], cwd=tmp_path, capture_output=True, text=True)
    assert started.returncode == 1
    assert "pip install 'recstore[embedded]'" in started.stderr
