"""What can be known of the image without a container engine: the rules of its Dockerfile, its entry point and its health check
as processes, and what the workflows and the documentation say of it. The workflow `test` builds and runs it."""

import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from support_mistakes import commands

from recstore.config import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (words[0], words[2])
    for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    if (words := line.partition(" "))[0].isupper()
]
FINAL = dict(INSTRUCTIONS[max(place for place, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :])
"""The instructions of the last stage."""

VARIABLES = dict(pair.split("=", 1) for pair in shlex.split(FINAL["ENV"]))
COMMANDS = {name.split()[0] for name, _ in commands()}
PORT = str(Settings.model_fields["metrics_port"].default)


def workflow(name: str) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"]
    return jobs["image"]


def test_the_image_runs_as_an_ordinary_user_on_a_base_with_a_version() -> None:
    bases = [what for name, what in INSTRUCTIONS if name == "FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+ AS base", bases[0])
    assert {base.split()[0] for base in bases[1:]} == {"base"}
    uid, gid = re.fullmatch(r"(\d+):(\d+)", FINAL["USER"]).groups()  # type: ignore[union-attr]
    assert int(uid) == int(gid) > 1000
    assert f"-o {uid} -g {gid}" in DOCKERFILE
    assert f"--uid {uid}" in DOCKERFILE


def test_its_variables_are_settings_and_its_data_are_in_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
        assert name.removeprefix("RECSTORE_").lower() in Settings.model_fields
    assert str(Settings().home) == FINAL["VOLUME"]
    assert FINAL["EXPOSE"] == PORT


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ([], ["recstore", "--help"]),
        (["demo"], ["recstore", "demo"]),
        (["--version"], ["recstore", "--version"]),
        (["psql", "-c", "SELECT  'a b', $HOME"], ["recstore", "psql", "-c", "SELECT  'a b', $HOME"]),
        (["recstore", "db", "upgrade"], ["recstore", "db", "upgrade"]),
        (
            ["celery", "-A", "recstore.worker", "-n", "default@%h"],
            ["celery", "-A", "recstore.worker", "-n", "default@%h"],
        ),
        (["python", "-c", "a b"], ["python", "-c", "a b"]),
    ],
)
def test_the_entry_point_runs_commands_by_name(given: list[str], run: list[str], tmp_path: Path) -> None:
    for name in "recstore", "celery", "python":
        (tmp_path / name).write_text('#!/bin/sh\necho "$$"\nprintf "%s\\0" "${0##*/}" "$@"')
        (tmp_path / name).chmod(0o755)
    words = json.loads(FINAL["ENTRYPOINT"]) + (given or json.loads(FINAL["CMD"]))
    process = subprocess.Popen(words, env={"PATH": f"{tmp_path}:{os.defpath}"}, stdout=subprocess.PIPE, text=True)
    pid, arguments = process.communicate()[0].split("\n", 1)
    assert arguments.split("\0")[:-1] == run
    assert int(pid) == process.pid, "signals must reach it"
    assert not {"recstore", "celery", "python", "sh"} & COMMANDS


@pytest.fixture
def worker() -> Iterator[http.server.HTTPServer]:
    """An address that answers /ready by its attribute `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status if self.path == "/ready" else 404)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("command", "status", "code"),
    [
        ("recstore up", 200, 0),
        ("recstore up", 503, 1),
        ("python -m celery -A recstore.worker worker -Q train", 200, 0),
        ("python -m celery -A recstore.worker worker -Q train", 503, 1),
        ("recstore worker", 404, 1),
        ("recstore retrain workers", 503, 0),
        ("python -m celery -A recstore.worker beat", 503, 0),
    ],
)
def test_the_health_check_asks_workers_alone(
    command: str, status: int, code: int, worker: http.server.HTTPServer, tmp_path: Path
) -> None:
    worker.status = status  # type: ignore[attr-defined]
    for pid, words in enumerate(["sh -c up|worker", command], start=1):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text("".join(f"{word}\0" for word in words.split(" ")))
    check = json.loads(FINAL["HEALTHCHECK"].partition(" CMD ")[2])
    assert f":-{PORT}" in check[-1]
    known = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "RECSTORE_METRICS_PORT": str(worker.server_port)}
    words = [word.replace("/proc/", f"{tmp_path}/") for word in check]
    assert subprocess.run(words, env=known, capture_output=True).returncode == code


def test_the_workflows_build_what_exists() -> None:
    release, test = workflow("release"), workflow("test")
    built = {row["libraries"]: row["platforms"] for row in release["strategy"]["matrix"]["include"]}
    assert built == {"demo": "linux/amd64,linux/arm64", "gpu": "linux/amd64"}
    assert f"ARG LIBRARIES={next(iter(built))}" in DOCKERFILE
    assert all((ROOT / f"requirements/{libraries}.txt").exists() for libraries in built)
    steps = "\n".join(step.get("run", "") for step in test["steps"])
    assert "--read-only --tmpfs /tmp --cap-drop ALL" in test["env"]["CONFINED"]
    assert set(re.findall(r"\$CONFINED recstore (\w+)", steps)) <= COMMANDS


def test_the_page_runs_commands_that_exist_and_states_a_size_below_the_limit() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    section = page.partition("## With docker run")[2].partition("\n## ")[0]
    text = section.replace("\\\n", " ")
    ran = re.findall(r"^docker run .*? recstore(?::gpu)? (\w+)", text, re.MULTILINE)
    assert {"demo", "up", "worker"} <= set(ran) <= COMMANDS
    limit = int(re.search(r"below (\d+) MB", str(workflow("test"))).group(1))  # type: ignore[union-attr]
    stated = re.search(r"^\| `recstore` .*\| (\d+) \| \d+ \|$", section, re.MULTILINE)
    assert stated
    assert int(stated[1]) < limit
