"""The Helm chart: what Helm renders from it is valid for Kubernetes, and agrees with the compose file, the settings, the
Dockerfile and the command line. `make chart` installs Helm as a library; without it most of this is skipped."""

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from recstore.worker.monitoring import application
from support import lacking

from recstore.config import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/recstore"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
sys.path.insert(0, str(ROOT / "docs"))

import cli_page  # noqa: E402

COMMANDS = dict(cli_page.commands())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
Objects = dict[tuple[str, str], Any]

DATABASE = {"database": {"existingSecret": "recstore-database"}}
BROKER = {"broker": {"existingSecret": "recstore-broker", "key": "redis"}}
GPU = {"train": {"gpu": True}}
FORMS: dict[str, dict[str, Any]] = {
    "one process": DATABASE,
    "one process and a GPU": DATABASE | GPU,
    "Celery": DATABASE | BROKER,
    "Celery and a GPU": DATABASE | BROKER | GPU,
    "everything": DATABASE
    | BROKER
    | {
        "image": {"repository": "registry.example.com/recstore", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "settings": {"RECSTORE_THREADS": 4, "RECSTORE_INDEX_MEMORY": 2_000_000, "RECSTORE_REMOTE_CONTROL": True}
        | {"RECSTORE_LOCK_TIMEOUT": 0.25, "RECSTORE_HISTORY": "30"},
        "extraEnv": [{"name": "OTEL_SERVICE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "train": {
            "gpu": True,
            "replicas": 2,
            "resources": {"limits": {"memory": "8Gi"}},
            "nodeSelector": {"accelerator": "yes"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}
KUBERNETES = ("1.25", "1.37")
"""The oldest version that Chart.yaml admits, and the newest whose schemas are installed."""

RENDER = """
import json, sys, helm_python
_, folder, values, name = sys.argv
values = json.loads(values)
with helm_python.Chart.load(folder) as chart:
    rendered = chart.render(values, name=name, namespace="shop")
print(json.dumps([rendered, helm_python.lint(folder, values, strict=True)]))
"""
"""In a process of its own: the library is Go's runtime, with threads and signal handlers."""


def helm(values: dict[str, Any], name: str = "recstore") -> subprocess.CompletedProcess[str]:
    if not find_spec("helm_python"):
        lacking("helm", "the Helm chart", "make chart")
    return subprocess.run(
        [sys.executable, "-c", RENDER, str(CHART), json.dumps(values), name], capture_output=True, text=True
    )


@cache
def render(form: str, name: str = "recstore") -> Objects:
    """The objects by kind and name, and the notes."""
    done = helm(FORMS[form], name)
    assert done.returncode == 0, done.stderr
    rendered, lint = json.loads(done.stdout)
    assert [message for message in lint["messages"] if message["severity"] > 1] == []
    objects: Objects = {("notes", ""): rendered.pop("recstore/templates/NOTES.txt")}
    for text in rendered.values():
        for found in filter(None, yaml.safe_load_all(text)):
            key = found["kind"], found["metadata"]["name"]
            assert key not in objects
            objects[key] = found
    return objects


def pods(objects: Objects) -> dict[str, Any]:
    """The specs of the pods by component."""
    found = {}
    for (kind, name), one in objects.items():
        if kind in ("Deployment", "Job"):
            template = one["spec"]["template"]
            component = template["metadata"]["labels"]["app.kubernetes.io/component"]
            assert name.endswith(f"-{component}")
            assert [container["name"] for container in template["spec"]["containers"]] == [component]
            found[component] = template["spec"]
    return found


def commands(form: str) -> dict[str, str]:
    return {name: " ".join(pod["containers"][0]["command"]) for name, pod in pods(render(form)).items()}


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """What is given to a container: values, or where they come from."""
    given = pod["containers"][0]["env"]
    assert len({variable["name"] for variable in given}) == len(given), "a variable is given twice"
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in given}


# Without Helm


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert "pattern=v{{version}}" in release
    assert "suffix: -gpu" in release
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


def test_the_schema_knows_every_value_and_every_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(part: dict[str, Any], values: dict[str, Any], where: str) -> None:
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" in part and where != "settings":
            assert part["additionalProperties"] is False
            assert part["properties"].keys() - {"global"} == values.keys(), where
            for name in values:
                compare(part["properties"][name], values[name], name)

    compare(schema, VALUES, "")
    others = {
        "database_url",
        "broker_url",
        "explorer_password",
        "device",
        "home",
        "metrics_host",
        "metrics_port",
    }  # the chart's own, or none
    settings = {f"RECSTORE_{name.upper()}" for name in Settings.model_fields if name not in others}
    assert schema["properties"]["settings"]["properties"].keys() == settings


# With Helm


@pytest.mark.parametrize("form", FORMS)
def test_what_is_rendered_is_valid_for_kubernetes(form: str) -> None:
    objects = render(form)
    import kubernetes_validate  # type: ignore[import-not-found]

    for (kind, _), one in objects.items():
        if kind not in ("notes", "ServiceMonitor"):
            for version in KUBERNETES:
                kubernetes_validate.validate(one, version, strict=True)
    wanted = {"worker", "migrate"} | ({"train"} if form != "one process" else set())
    wanted |= {"beat"} if "broker" in FORMS[form] else set()
    assert pods(objects).keys() == wanted


@pytest.mark.parametrize("form", FORMS)
def test_a_pod_is_confined_and_has_its_settings_and_its_secrets_by_reference(form: str) -> None:
    objects = render(form)
    assert not [kind for kind, _ in objects if kind in ("Secret", "ConfigMap")]
    user, group = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE).groups()  # type: ignore[union-attr]
    known = {f"RECSTORE_{name.upper()}" for name in Settings.model_fields}
    for component, pod in pods(objects).items():
        (container,) = pod["containers"]
        security = pod["securityContext"]
        assert security == {
            "runAsNonRoot": True,
            "runAsUser": int(user),
            "runAsGroup": int(group),
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]  # otherwise RECSTORE_PORT and more, which the command line warns of
        given = environment(pod)
        secrets = {"RECSTORE_DATABASE_URL": ("recstore-database", "url")}
        secrets |= {"RECSTORE_BROKER_URL": ("recstore-broker", "redis")} if "broker" in FORMS[form] else {}
        for name, (secret, key) in secrets.items():
            assert given.pop(name) == {"secretKeyRef": {"name": secret, "key": key}}
        others = {name for name in given if not name.startswith("RECSTORE_")}
        assert others <= {"NVIDIA_DRIVER_CAPABILITIES", "OTEL_SERVICE_NAME"}
        assert given.keys() - others <= known
        assert not [name for name in given if re.search("URL|PASSWORD", name)]
        settings = {name: value for name, value in given.items() if isinstance(value, str) and name not in others}
        read = Settings(**{name.removeprefix("RECSTORE_").lower(): value for name, value in settings.items()})  # type: ignore[arg-type]
        assert read.metrics_host == "0.0.0.0"
        if form == "everything":
            assert (read.threads, read.index_memory, read.lock_timeout) == (4, 2_000_000, 0.25)
            assert (read.remote_control, read.history) == (True, 30)
            assert container["imagePullPolicy"] == "Always"
        else:
            assert given["RECSTORE_THREADS"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
        gpu = component == "train" and "train" in FORMS[form]
        assert read.device == ("auto" if gpu else "cpu")
        image = "registry.example.com/recstore:1" if form == "everything" else f"recstore:v{VERSION}"
        assert container["image"] == image + "-gpu" * gpu
        assert container["resources"].get("limits", {}).get("nvidia.com/gpu") == (1 if gpu else None)
        assert container["resources"]["requests"] == VALUES[component]["resources"]["requests"]


def test_the_commands_are_those_that_the_compose_file_runs() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    run = {name: compose[name]["command"].replace("default,celery", "default") for name in commands("Celery")}
    assert commands("Celery") == commands("Celery and a GPU") == commands("everything") == run
    assert commands("one process") == {"worker": "recstore worker", "migrate": "recstore db upgrade"}
    assert commands("one process and a GPU") == {
        "worker": "recstore worker --train 0",
        "train": "recstore worker --default 0",
        "migrate": "recstore db upgrade",
    }


def test_recstore_has_the_commands_and_their_options() -> None:
    for form in ("one process", "one process and a GPU", "Celery"):
        objects = render(form)
        lines = [line for line in commands(form).values() if line.startswith("recstore ")]
        lines += [" ".join(words) for pod in pods(objects).values() for words in execs(pod)]
        lines += re.findall(r"-- (recstore .*)$", objects["notes", ""], re.MULTILINE)
        assert len(lines) >= 3
        for line in lines:
            name = next(name for name in COMMANDS if line == name or line.startswith(f"{name} "))
            COMMANDS[name].make_context(name, line.removeprefix(name).split())


def execs(pod: dict[str, Any]) -> list[list[str]]:
    probes = [probe for name, probe in pod["containers"][0].items() if name.endswith("Probe")]
    return [probe["exec"]["command"] for probe in probes if "exec" in probe]


@pytest.mark.parametrize("form", FORMS)
def test_ports_and_addresses_of_probes_and_metrics_agree(form: str) -> None:
    objects = render(form)
    selector = {"app.kubernetes.io/name": "recstore", "app.kubernetes.io/instance": "recstore"}
    service = objects["Service", "recstore"]["spec"]
    (port,) = service["ports"]
    assert port == {"name": "metrics", "port": 9469, "targetPort": "metrics"}
    assert service["selector"] == selector
    for component, pod in pods(objects).items():
        (container,) = pod["containers"]
        probes = {name: container[name] for name in container if name.endswith("Probe")}
        if component in ("beat", "migrate"):
            assert "ports" not in container
            assert execs(pod) == [["recstore", "health"]] * len(probes)
            continue
        assert container["ports"] == [{"name": "metrics", "containerPort": 9469}]
        assert environment(pod)["RECSTORE_METRICS_PORT"] == str(9469)
        paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
        assert paths == {"livenessProbe": "/live", "readinessProbe": "/ready"}
        assert {probe["httpGet"]["port"] for probe in probes.values()} == {"metrics"}
    for (kind, name), one in objects.items():
        if kind == "Deployment":
            labels = one["spec"]["template"]["metadata"]["labels"]
            component = name.removeprefix("recstore-")
            assert (
                one["spec"]["selector"]["matchLabels"]
                == labels
                == selector | {"app.kubernetes.io/component": component}
            )
            if component == "beat":
                assert (one["spec"]["replicas"], one["spec"]["strategy"]) == (1, {"type": "Recreate"})
            else:
                assert one["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
        if kind == "ServiceMonitor":
            assert one["metadata"]["labels"]["release"] == "prometheus"
            assert (
                one["spec"]["selector"]["matchLabels"].items()
                <= objects["Service", "recstore"]["metadata"]["labels"].items()
            )
            assert [endpoint["port"] for endpoint in one["spec"]["endpoints"]] == ["metrics"]
    assert (("ServiceMonitor", "recstore") in objects) == (form == "everything")


def test_a_worker_serves_the_addresses() -> None:
    answered: list[str] = []
    answer = application(Settings(database_url="postgresql://127.0.0.1:1/x"), lambda: None, lambda: None)
    for path in ("/live", "/ready", "/metrics", "/nothing"):
        answer({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda status, _: answered.append(status[:3]))
    assert answered == ["200", "200", "200", "404"]


def test_the_migration_runs_before_installations_and_upgrades() -> None:
    job = render("one process")["Job", "recstore-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_objects_of_another_release_have_its_name() -> None:
    names = {name for kind, name in render("Celery", "shop") if kind != "notes"}
    assert names == {"shop-recstore", *(f"shop-recstore-{part}" for part in ("worker", "train", "beat", "migrate"))}
    assert all(len(name) <= 63 for _, name in render("Celery", "s" * 53))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "Set database.existingSecret to the name of a Secret with the database's URL"),
        ({"databases": {}}, "additional properties 'databases' not allowed"),
        (
            {"database": {"url": "postgresql://me:secret@db/shop"}},
            "'/database': additional properties 'url' not allowed",
        ),
        ({"settings": {"RECSTORE_INDX_MEMORY": 1}}, "'RECSTORE_INDX_MEMORY' not allowed"),
        ({"settings": {"RECSTORE_DATABASE_URL": "x"}}, "'RECSTORE_DATABASE_URL' not allowed"),
        ({"train": {"gpu": "yes"}}, "'/train/gpu': got string, want boolean"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    done = helm(values)
    assert done.returncode == 1
    assert sentence in done.stderr
