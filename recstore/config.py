"""Settings of the process: where the database is, what it may use, how long it waits. The sole reader of the environment.

What belongs to one recommender is in `recstore.definition`.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong

LONGEST = 1e9
"""Seconds: thirty years, for those who mean for ever."""

LONGEST_TIMEOUT = 2_147_483
"""Seconds that a timeout of PostgreSQL can have."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a program it becomes, with `more` in it."""
    return dict(os.environ) | more


class Settings(BaseSettings):
    """Every field is an environment variable: RECSTORE_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RECSTORE_", frozen=True)

    database_url: str | None = Field(
        None, description="postgresql://.. of the application's database; unset: the embedded one"
    )
    home: Path = Field(Path(".recstore"), description="folder of the embedded servers")
    broker_url: str | None = Field(
        None,
        description="redis://.. of Celery; unset: the one that `recstore up` runs, otherwise redis://localhost:6379/0",
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where to train")
    threads: int = Field(0, ge=0, le=1024, description="threads of training; 0: all cores")
    source_timeout: float = Field(3600, gt=0, le=LONGEST_TIMEOUT, description="seconds that reading a source may take")
    flip_wait: float = Field(
        60, ge=0, le=LONGEST, description="seconds to wait for other transactions before a generation is left ready"
    )
    prune_wait: float = Field(
        5, ge=0, le=LONGEST, description="seconds to wait for other transactions before pruning is left for later"
    )
    retention: float = Field(
        60, ge=0, le=LONGEST, description="least seconds that a generation is kept after it was live"
    )
    lock_timeout: float = Field(
        0.5,
        gt=0,
        le=LONGEST_TIMEOUT,
        description="seconds that one attempt at a short lock may wait; below deadlock_timeout",
    )
    lock_attempts: int = Field(30, ge=1, description="attempts at a short lock")
    index_memory: int = Field(
        1024, ge=16, le=2_097_151, description="most megabytes of maintenance_work_mem for an index build"
    )
    index_workers: int = Field(2, ge=0, le=1024, description="parallel workers of an index build")
    calibration_questions: int = Field(
        200, ge=1, description="users, and items, whose exact lists a calibration compares with"
    )
    dispatch_interval: float = Field(60, gt=0, le=LONGEST, description="seconds between two dispatches by beat")
    resend: float = Field(
        300, gt=0, le=LONGEST, description="seconds after which a message that no worker has begun is sent again"
    )
    attempts: int = Field(5, ge=1, description="attempts at a request whose worker or connection was lost")
    retry_backoff: float = Field(
        10, ge=0, le=LONGEST, description="seconds before the second attempt; each further one doubles them"
    )
    time_limit: float = Field(6 * 3600, gt=0, le=LONGEST, description="seconds that a worker lets a run take")
    visibility_timeout: float = Field(
        8 * 3600,
        gt=0,
        le=LONGEST,
        description="seconds after which Redis delivers a message again; above RECSTORE_TIME_LIMIT",
    )
    history: float = Field(90, gt=0, le=100_000, description="days that ended runs and requests are kept")
    metrics_host: str = Field("127.0.0.1", description="address of a worker's metrics and health checks")
    metrics_port: int = Field(9469, ge=0, le=65535, description="port of a worker's metrics and health checks; 0: none")

    @field_validator("database_url", "broker_url")
    @classmethod
    def _empty_is_unset(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value and not value.startswith(("redis://", "rediss://", "redis+socket://", "sentinel://")):
            raise ValueError("it has to begin with redis://, rediss:// (TLS) or redis+socket:// (a Unix socket)")
        return value


def load_settings(**overrides: object) -> Settings:
    """The settings of this process; `overrides` that are None are left to the environment. Raises InvalidInput."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "RECSTORE_" + str(first["loc"][0]).upper()
        shown = "not usable" if name.endswith("_URL") else repr(first["input"])  # a URL may hold a password
        raise InvalidInput(f"The setting {name} is {shown}: {what_is_wrong(first)}.") from None
