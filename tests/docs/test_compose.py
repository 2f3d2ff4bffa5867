"""What can be known of the compose files and the Dockerfile without a container engine: that they agree with each other,
with .env.example and with the settings, and that every command in them runs, as processes on the embedded servers."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml  # type: ignore[import-untyped]
from conftest import superuser
from support import free_port, until

from recstore.config import Settings
from recstore.demo.broker import broker_path, temporary_broker
from recstore.embedded import Server, temporary_server, tool_path

ROOT = Path(__file__).parents[2]
RAW = (ROOT / "docker-compose.yml").read_text()
RAW_SINGLE = (ROOT / "docker-compose.single.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

DOCUMENTED = {
    # hub.docker.com/_/postgres, "Environment Variables"
    "postgres": {"POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_INITDB_ARGS", "POSTGRES_INITDB_WALDIR"}
    | {"POSTGRES_HOST_AUTH_METHOD", "PGDATA"},
    # its docker-entrypoint.sh
    "redis": {"VALKEY_EXTRA_FLAGS"},
    # flower.readthedocs.io, "Configuration": FLOWER_ and any option's name; celery/app/utils.py
    "flower": {"FLOWER_BASIC_AUTH", "FLOWER_READ_ONLY", "FLOWER_PORT", "FLOWER_URL_PREFIX", "CELERY_BROKER_URL"},
}
"""Environment variables that the images of others know, and where that is said."""

OTHERS = {"NVIDIA_DRIVER_CAPABILITIES"}
"""Variables of recstore's services that are none of its settings: NVIDIA's container toolkit, "Specialized Configurations"."""

PASSWORD = "s3cret"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^{}]*))?\})")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """As Compose does, of what is used here. Raises KeyError with the sentence of `${NAME:?sentence}`."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if given := variables.get(match["name"]):
            return given
        if match["kind"] == "?":
            raise KeyError(match["rest"])
        return match["rest"] or ""

    return VARIABLE.sub(value, text)


def example(**given: str) -> dict[str, str]:
    """What .env.example sets once the passwords are filled in, or something else is."""
    variables = {"REDIS_PASSWORD": PASSWORD, "POSTGRES_PASSWORD": PASSWORD} | given
    for name, value in re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE):
        if name not in variables:
            variables[name] = interpolate(value, variables)
    return variables


def services(raw: str = RAW, **given: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(interpolate(raw, example(**given)))["services"]
    return {name: {"environment": {}} | service for name, service in found.items()}


def config(name: str) -> str:
    """Text of a file that Compose writes into a container."""
    return str(yaml.safe_load(interpolate(RAW, example()))["configs"][name]["content"])


def command(words: str | list[str]) -> list[str]:
    """A command of the image's as one of this environment's."""
    program, *rest = shlex.split(words) if isinstance(words, str) else words
    module = {"celery": ["-m", "celery"], "recstore": ["-m", "recstore"], "python": []}[program]
    return [sys.executable, *module, *rest]


def megabytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", size.lower()).groups()  # type: ignore[union-attr]
    return int(number) * {"mb": 1, "gb": 1024}[unit]


SERVICES = services()
SINGLE = services(RAW_SINGLE)
OURS = {name for name, service in SERVICES.items() if service["image"].partition(":")[0] == "recstore"}
PARAMETERS = dict(pair.split("=", 1) for pair in shlex.split(SERVICES["postgres"]["command"])[2::2])
"""The server parameters of the bundled database."""


# What is written


def test_the_example_explains_each_variable_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    used = {match["name"] for match in VARIABLE.finditer(RAW) if match["name"]}
    handed_on = {
        name for service in SERVICES.values() for name, value in service["environment"].items() if value is None
    }
    assert not used & handed_on
    assert used | handed_on | {"COMPOSE_PROFILES"} == set(re.findall(r"^#?(\w+)=", text, re.MULTILINE))


def test_defaults_in_the_example_are_those_of_the_code() -> None:
    text = (ROOT / ".env.example").read_text()
    shown = re.findall(r"^#RECSTORE_(\w+)=(.*)$", text, re.MULTILINE)
    shown = [(name.lower(), value) for name, value in shown if name != "DATABASE_URL"]
    assert len(shown) > 10
    for name, value in shown:
        assert getattr(Settings(**{name: value}), name) == Settings.model_fields[name].get_default(), name
    for name, default in re.findall(r"\{(POSTGRES_\w+):-([^}]+)\}", RAW):
        assert f"#{name}={default}\n" in text


@pytest.mark.parametrize("missing", ["REDIS_PASSWORD", "POSTGRES_PASSWORD", "RECSTORE_DATABASE_URL"])
def test_a_variable_without_default_is_required(missing: str) -> None:
    with pytest.raises(KeyError, match=f"Set {missing} in .env"):
        services(**{missing: ""})


def test_an_own_database_requires_no_variable_of_the_bundled_one() -> None:
    url = "postgresql://me@db/shop"
    given = services(RECSTORE_DATABASE_URL=url, POSTGRES_PASSWORD="")
    assert {given[name]["environment"]["RECSTORE_DATABASE_URL"] for name in OURS} == {url}


def test_no_secret_is_in_the_files() -> None:
    bare = yaml.safe_load(VARIABLE.sub("", RAW))
    for service in bare["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|AUTH|URL", name) or value in ("", "redis://:@redis:6379/0"), name
    text = "".join(config["content"] for config in bare["configs"].values())
    assert set(re.findall(r"(?i)(?:requirepass|password) ?(.*)", text)) == {"'';", "NULL;", ""}
    assert set(re.findall(r"^\w+_PASSWORD=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)) == {""}
    assert "!.env" not in (ROOT / ".dockerignore").read_text()
    assert not re.search("(?i)password|secret", DOCKERFILE)


def test_each_setting_reaches_the_services_under_its_name() -> None:
    for name in OURS:
        given = SERVICES[name]["environment"]
        fields = {f"RECSTORE_{field.upper()}" for field in Settings.model_fields if field != "home"}
        assert set(given) - OTHERS == fields, name
        settings = {key.removeprefix("RECSTORE_").lower(): value for key, value in given.items() if key in fields}
        Settings(**{key: value for key, value in settings.items() if value is not None})  # type: ignore[arg-type]


def test_images_of_others_know_their_variables_and_are_pinned() -> None:
    for name in set(SERVICES) - OURS:
        assert set(SERVICES[name]["environment"]) <= DOCUMENTED[name], name
        assert re.search(r":\d+\.\d+\.\d+", SERVICES[name]["image"]), name


def test_the_images_are_of_the_versions_that_are_tested(server: Server) -> None:
    with superuser(server, "application") as connection:
        row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    assert row
    assert SERVICES["postgres"]["image"] == f"pgvector/pgvector:{row[0]}-pg{server.version}-trixie"
    said = subprocess.run([broker_path(), "--version"], capture_output=True, text=True, check=True).stdout
    assert f"v={SERVICES['redis']['image'].split(':')[1].split('-')[0]} " in said


def test_each_image_is_built_once_and_never_pulled() -> None:
    assert {"worker", "train", "train-gpu", "beat", "migrate", "explorer"} == OURS
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert sorted(built) == sorted({SERVICES[name]["image"] for name in OURS})
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


def test_services_wait_for_what_exists() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            always = "profiles" not in SERVICES[other] or how.get("required") is False
            assert always, f"{name} would not start without the profile of {other}"
            assert how["condition"] == "service_completed_successfully" or "healthcheck" in SERVICES[other]
    assert set(example()["COMPOSE_PROFILES"].split(",")) == {"postgres", "cpu"}
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {"postgres", "cpu", "gpu", "explorer", "flower"}


def test_every_service_is_watched_restarted_confined_and_logs_without_filling_the_disk() -> None:
    for name, service in SERVICES.items():
        assert name == "migrate" or service["healthcheck"]["test"]
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"]["options"]["max-size"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        # Compose writes `configs` into the container itself, which fails where that is read-only
        assert not (service.get("read_only") and "configs" in service)
    for name in OURS:
        assert SERVICES[name]["read_only"]
        assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_shared_memory_holds_the_largest_index_build() -> None:
    given = SERVICES["worker"]["environment"]
    memory, workers = int(given["RECSTORE_INDEX_MEMORY"] or 0), given["RECSTORE_INDEX_WORKERS"]
    assert PARAMETERS["maintenance_work_mem"] == f"{memory}MB"
    assert PARAMETERS["max_parallel_maintenance_workers"] == workers
    assert megabytes(SERVICES["postgres"]["shm_size"]) >= 2 * memory + 512
    assert megabytes(services(POSTGRES_SHM_SIZE="4gb")["postgres"]["shm_size"]) == 4096


def test_the_dockerfile_copies_what_exists_and_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    libraries = re.findall(r"ARG LIBRARIES=(\w+)", DOCKERFILE)
    builds = {service["image"]: service["build"] for service in SERVICES.values() if "build" in service}
    libraries += [build["args"]["LIBRARIES"] for build in builds.values() if build != "."]
    assert sorted(libraries) == ["demo", "gpu"]
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE)]
    for source in [source for sources in copied for source in sources]:
        for library in libraries:
            path = source.replace("${LIBRARIES}", library)
            assert (ROOT / path).exists(), path
            assert f"!{path}" in ignored or f"!{Path(path).parent}/*{Path(path).suffix}" in ignored, path
    needed = {"pyproject.toml", "README.md", "LICENSE", "recstore", "migrations", "worker"}
    assert needed <= {source for sources in copied for source in sources}
    for library in libraries:
        installed = (ROOT / f"requirements/{library}.txt").read_text()
        for line in (ROOT / "requirements/build.in").read_text().split():
            assert re.search(rf"^{re.split('[<>=]', line)[0]}==", installed, re.MULTILINE), (
                "no build isolation without it"
            )


def test_flower_shows_nothing_without_a_password() -> None:
    words = [word.replace("exec celery flower", "echo started") for word in SERVICES["flower"]["command"]]
    for auth, code, output in ("", 1, ""), ("a:b", 0, "started\n"):
        known = {"PATH": os.defpath, "FLOWER_BASIC_AUTH": auth}
        done = subprocess.run(words, env=known, capture_output=True, text=True)
        assert (min(done.returncode, 1), done.stdout) == (code, output)
        assert ("FLOWER_BASIC_AUTH" in done.stderr) == (code == 1)


def test_systemd_runs_what_compose_runs() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    units = re.findall(r"^ExecStart=/opt/recstore/bin/(.*)$", page, re.MULTILINE)
    assert len(units) == 2
    for unit in units:
        assert shlex.split(unit.replace("%%", "%")) in [
            shlex.split(service["command"]) for service in SERVICES.values() if isinstance(service["command"], str)
        ]


def test_one_process_needs_a_database_alone_and_else_is_like_the_worker_of_celery() -> None:
    assert {match["name"] for match in VARIABLE.finditer(RAW_SINGLE)} == {"RECSTORE_DATABASE_URL"}
    with pytest.raises(KeyError, match="Set RECSTORE_DATABASE_URL in "):
        services(RAW_SINGLE, RECSTORE_DATABASE_URL="")
    assert SINGLE.keys() == {"migrate", "worker"}
    for name, service in SINGLE.items():
        other = SERVICES[name]
        differs = {key for key in service.keys() | other.keys() if service.get(key) != other.get(key)}
        assert differs - {"command", "stop_grace_period"} == {"environment", "env_file", "depends_on"}
        assert service["environment"].items() <= other["environment"].items()
        assert service["env_file"] == ".env"
    assert SINGLE["migrate"]["command"] == SERVICES["migrate"]["command"]
    assert SINGLE["worker"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert SINGLE["worker"]["stop_grace_period"] == SERVICES["train"]["stop_grace_period"]


# What runs


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The bundled database: its parameters, and on its first start its SQL, run as the image does."""
    with temporary_server(18, PARAMETERS) as server:
        with superuser(server) as connection:
            connection.execute(f"CREATE DATABASE {SERVICES['postgres']['environment']['POSTGRES_DB']}")
        psql = [str(tool_path(18, "psql")), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-d", server.url_of("application")]
        subprocess.run(psql, input=config("postgres-role"), text=True, check=True, capture_output=True)
        yield server


@pytest.fixture(scope="module")
def database(server: Server) -> str:
    """Its URL as recstore's role, migrated by the command that the other services wait for."""
    url = f"postgresql://recstore_worker@/application?host={server.sockets}"
    given = example()["RECSTORE_DATABASE_URL"]
    assert given == f"postgresql://recstore_worker:{PASSWORD}@postgres:5432/application"
    done = start(SERVICES["migrate"], RECSTORE_DATABASE_URL=url)
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0, said
    return url


def start(service: dict[str, Any], **replaced: str) -> subprocess.Popen[str]:
    """A service of ours as a process, in its environment but for what is replaced."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("RECSTORE_")}
    given = {key: value for key, value in service["environment"].items() if value is not None}
    return subprocess.Popen(
        command(service["command"]),
        env=known | given | replaced,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_server_takes_its_parameters(server: Server) -> None:
    with superuser(server) as connection:
        for name, value in PARAMETERS.items():
            row = connection.execute("SELECT source, current_setting(name) FROM pg_settings WHERE name = %s", [name])
            source, current = row.fetchone() or ("", "")
            assert source == "command line"
            same = connection.execute("SELECT pg_size_bytes(%s) = pg_size_bytes(%s)", [value, current]).fetchone()
            assert same == (True,), f"{name} is {current}, not {value}"


def test_the_role_of_the_bundled_database_is_no_superuser(server: Server) -> None:
    with superuser(server, "application") as connection:
        roles = connection.execute(
            "SELECT rolname, rolsuper, rolcanlogin, rolpassword IS NULL FROM pg_authid"
            " WHERE rolname IN ('postgres', 'recstore_worker')"
        ).fetchall()
    assert set(roles) == {("postgres", True, True, True), ("recstore_worker", False, True, False)}


def test_the_health_check_of_the_bundled_database(server: Server) -> None:
    _, program, *options = SERVICES["postgres"]["healthcheck"]["test"]
    for host, healthy in (str(server.sockets), True), ("/nowhere", False):
        words = [option.replace("127.0.0.1", host) for option in options]
        assert (subprocess.run([tool_path(18, program), *words], capture_output=True).returncode == 0) == healthy


def test_redis_takes_its_configuration(tmp_path: Path) -> None:
    file, path = tmp_path / "valkey.conf", tmp_path / "s"
    file.write_text(config("redis"))
    program, target = SERVICES["redis"]["command"].split()
    assert program == "valkey-server"
    assert SERVICES["redis"]["configs"] == [{"source": "redis", "target": target}]
    words = [str(broker_path()), str(file), "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            until(lambda: client.connect_ex(str(path)) == 0)
            client.sendall(b"PING\r\n")
            assert client.recv(100).startswith(b"-NOAUTH")  # what the health check looks for
        with redis.Redis(unix_socket_path=str(path), password=PASSWORD) as redis_client:
            for name, value in {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}.items():
                assert redis_client.config_get(name) == {name: value}
            assert redis_client.config_get("maxmemory") == {"maxmemory": str(256 * 2**20)}
    finally:
        process.terminate()
        assert process.wait(20) == 0


def listens(process: subprocess.Popen[str], port: str) -> bool:
    assert process.poll() is None, process.communicate()[0]
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def healthy(process: subprocess.Popen[str], check: list[str], known: dict[str, str]) -> bool:
    assert process.poll() is None, process.communicate()[0]
    return subprocess.run(check, env=os.environ | known, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("names", [("worker", "train", "beat"), ("single",)])
def test_the_services_become_healthy_and_end_at_sigterm(names: tuple[str, ...], database: str) -> None:
    assert SERVICES["train-gpu"]["command"] == SERVICES["train"]["command"]
    all_services = SERVICES | {"single": SINGLE["worker"]}
    with temporary_broker() as broker, ExitStack() as stack:
        running = {}
        for name in names:
            port = str(free_port())
            replaced = {"RECSTORE_DATABASE_URL": database}
            replaced |= {"RECSTORE_BROKER_URL": broker.url} if name != "single" else {}
            replaced |= {"RECSTORE_METRICS_HOST": "127.0.0.1", "RECSTORE_METRICS_PORT": port}
            replaced |= {"RECSTORE_DISPATCH_INTERVAL": "1"}
            process = start(all_services[name], **replaced)
            stack.callback(process.kill)
            running[name] = process, port, replaced
        for name, (process, port, replaced) in running.items():
            _, *test = all_services[name]["healthcheck"]["test"]
            check = [word.replace("9469", port) for word in command(test)]
            if name != "beat":
                until(partial(listens, process, port), 60)
            until(partial(healthy, process, check, replaced))
        for process, _, _ in running.values():
            process.send_signal(signal.SIGTERM)
        for name, (process, _, _) in running.items():
            said, _ = process.communicate(timeout=30)
            assert process.returncode == 0, f"{name}: {said}"
