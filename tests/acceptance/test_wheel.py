"""The package as it is published: a wheel, installed outside the checkout, does the main job; and it installs nothing else."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Database

from recstore.demo.broker import temporary_broker

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
    parts = (ROOT / name for name in ("recstore", "migrations", "worker", "pyproject.toml", "README.md"))
    run("cp", "-a", *parts, source, cwd=folder)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def test_only_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"recstore", "recstore-0.1.0.dist-info"}
    for needed in (
        "recstore/py.typed",
        "recstore/sql/requests.sql",
        "recstore/sql/objects/functions.sql",
        "recstore/migrations/sql/0001_up.sql",
        "recstore/migrations/sql/checksums.txt",
        "recstore/worker/celery/tasks.py",
        "recstore/worker/process.py",
        "recstore/demo/data/online_retail_2010.views.csv.gz",
        "recstore/demo/data/README.md",
    ):
        assert needed in names


MAIN_JOB = """
import sys
from recstore import cli
for line in sys.stdin.read().splitlines():
    assert cli.run([*sys.argv[1:], *line.split()]) == 0, line
"""
"""Runs command lines of the installed package, one after the other, in one process."""


@pytest.mark.parametrize("packages", ["at hand", pytest.param("locked", marks=pytest.mark.campaign)])
def test_an_installed_wheel_does_the_main_job(packages: str, wheel: Path, tmp_path: Path, empty: Database) -> None:
    """On the packages of this environment, or on the locked ones of a worker."""
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    python, recstore = tmp_path / "env/bin/python", tmp_path / "env/bin/recstore"
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python]
    if packages == "locked":
        run(*install, "--require-hashes", "-r", ROOT / "requirements/worker.txt", cwd=tmp_path)
    else:
        (site,) = tmp_path.glob("env/lib/python*/site-packages")
        (site / "at_hand.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    where = run(python, "-c", "import recstore; print(recstore.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    application = empty.connect("application")
    application.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.views AS SELECT u AS user_id, (u * 7 + n * n) % 40 AS item_id, 1 AS value"
        " FROM generate_series(1, 60) u, generate_series(1, 8) n;"
        " GRANT USAGE ON SCHEMA shop TO worker; GRANT SELECT ON shop.views TO worker"
    )

    def job(*lines: str) -> str:
        command = [python, "-c", MAIN_JOB, "--database", empty.url]
        done = subprocess.run(command, cwd=tmp_path, input="\n".join(lines), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(recstore, "--database", empty.url, "db", "upgrade", cwd=tmp_path)
    create = "create retail --table shop.views --value value --factors 8"
    assert "trained" in job("db check", create, "retrain retail", "recommend retail 1 -k 3")
    with temporary_broker() as broker:
        servers = {"DATABASE_URL": empty.url, "BROKER_URL": broker.url, "METRICS_PORT": "0"}
        worker = subprocess.Popen(
            [python, "-W", "ignore", "-m", "celery", "-A", "recstore.worker", "worker", "--concurrency", "1"],
            cwd=tmp_path,
            env=dict(os.environ) | {f"RECSTORE_{name}": value for name, value in servers.items()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            job("request reindex retail --wait --timeout 60")
        finally:
            worker.terminate()
            assert worker.wait(60) == 0
    job("drop retail --yes", "db downgrade base --yes")
    if packages == "locked":  # without the embedded servers
        started = subprocess.run([recstore, "start"], cwd=tmp_path, capture_output=True, text=True)
        assert started.returncode == 1
        assert "pip install 'recstore[embedded]'" in started.stderr
