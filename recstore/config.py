"""Settings of the process: its servers, resources and waiting times. The only module that reads the environment.

The settings of one recommender are in `recstore.definition`.
"""

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong

LONGEST = 1e9
"""Seconds; about 30 years, i.e. no limit."""

LONGEST_TIMEOUT = 2_147_483
"""Seconds; the largest timeout that PostgreSQL accepts."""


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process, extended by `more`, for a child process."""
    return dict(os.environ) | more


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def traces_wanted() -> bool:
    """Return whether the standard variables OTEL_.. name a collector for traces."""
    named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if named else "none")
    return exporter == "otlp" and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


class Settings(BaseModel):
    """Each field that is not given is read from the environment variable RECSTORE_<NAME>."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database_url: str | None = Field(
        None, description="URL (postgresql://) of the application's database; unset: the embedded server"
    )
    home: Path = Field(Path(".recstore"), description="Folder of the embedded servers")
    broker_url: str | None = Field(
        None,
        description="URL of Celery's broker, redis://localhost:6379/0 for its processes without it; `recstore worker` needs none",
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="Device for training")
    threads: int = Field(0, ge=0, le=1024, description="Threads for training; 0: all cores")
    source_timeout: float = Field(3600, gt=0, le=LONGEST_TIMEOUT, description="Seconds to allow for reading a source")
    flip_wait: float = Field(
        60,
        ge=0,
        le=LONGEST,
        description="Seconds that a flip waits for other transactions; then it stays ready",
    )
    prune_wait: float = Field(5, ge=0, le=LONGEST, description="Seconds that pruning waits for other transactions")
    retention: float = Field(60, ge=0, le=LONGEST, description="Minimum seconds to keep a generation after it was live")
    lock_timeout: float = Field(
        0.5,
        gt=0,
        le=LONGEST_TIMEOUT,
        description="Seconds to wait for a short lock in one attempt; keep it below deadlock_timeout",
    )
    lock_attempts: int = Field(30, ge=1, description="Attempts to get a short lock")
    index_memory: int = Field(
        1024, ge=16, le=2_097_151, description="Maximum maintenance_work_mem of an index build, in MB"
    )
    index_workers: int = Field(2, ge=0, le=1024, description="Parallel workers of an index build and its calibration")
    calibration_questions: int = Field(
        400, ge=1, description="Users, and items, whose exact lists calibration compares with"
    )
    dispatch_interval: float = Field(60, gt=0, le=LONGEST, description="Seconds between two dispatches")
    resend: float = Field(300, gt=0, le=LONGEST, description="Seconds after which an unstarted message is sent again")
    attempts: int = Field(5, ge=1, description="Attempts at a request whose worker or connection is lost")
    retry_backoff: float = Field(
        10, ge=0, le=LONGEST, description="Seconds before the second attempt; doubled for each further one"
    )
    time_limit: float = Field(6 * 3600, gt=0, le=LONGEST, description="Maximum seconds of a run on a worker")
    visibility_timeout: float = Field(
        8 * 3600,
        gt=0,
        le=LONGEST,
        description="Seconds after which Redis redelivers a message; keep it above RECSTORE_TIME_LIMIT",
    )
    remote_control: bool = Field(
        False,
        description="Whether workers obey Celery's remote control, as Flower needs; it has no password of its own",
    )
    history: float = Field(90, gt=0, le=100_000, description="Days to keep finished runs and requests")
    metrics_host: str = Field("127.0.0.1", description="Address on which a worker serves metrics and health checks")
    metrics_port: int = Field(
        9469, ge=0, le=65535, description="Port on which a worker serves metrics and health checks; 0: none"
    )

    explorer_password: SecretStr | None = Field(
        None, description="Password of the explorer; required for other machines and for --operators"
    )

    @model_validator(mode="before")
    @classmethod
    def _environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        variables = {name: f"RECSTORE_{name.upper()}" for name in cls.model_fields}
        return {name: os.environ[one] for name, one in variables.items() if one in os.environ} | given

    @field_validator("explorer_password")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value or None

    @field_validator("database_url")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():  # a variable of a script that was not set
            raise ValueError("it is empty; give a URL (postgresql://..), or none for the embedded server")
        return value

    @field_validator("broker_url")
    @classmethod
    def _empty_is_unset(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value and not value.startswith(("redis://", "rediss://", "redis+socket://", "sentinel://")):
            raise ValueError("it must start with redis://, rediss:// (TLS) or redis+socket:// (a Unix socket)")
        return value


def unknown_variables() -> list[str]:
    """Return a sentence for each variable RECSTORE_.. of the environment that is no setting; RECSTORE_TEST_.. are the tests'."""
    known = [f"RECSTORE_{name.upper()}" for name in Settings.model_fields]
    sentences = []
    for variable in os.environ:
        if variable.startswith("RECSTORE_") and not variable.startswith("RECSTORE_TEST_") and variable not in known:
            near = difflib.get_close_matches(variable, known, 1, cutoff=0)[0]
            sentences.append(f"{variable} is no setting and has no effect; the nearest is {near}.")
    return sentences


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this process. `overrides` that are None come from the environment. Raises InvalidInput."""
    chosen = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = "RECSTORE_" + str(first["loc"][0]).upper()
        shown = "not usable" if name.endswith("_URL") else repr(first["input"])  # a URL may hold a password
        raise InvalidInput(f"The setting {name} is {shown}: {what_is_wrong(first)}.") from None
