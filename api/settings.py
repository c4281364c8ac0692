"""What the service may use: addresses, folders, time, memory. Nothing here can change what is proved."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")


class Settings(BaseSettings):
    """Read from arguments, then from the environment: `PROVENN_PORT=9000` sets `port`."""

    model_config = SettingsConfigDict(env_prefix="PROVENN_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    authentication: Literal["none", "keys"] = Field(
        "none", description="who may use the service: none: whoever reaches it; keys: who has an API key"
    )
    public_without_authentication: bool = Field(
        False, description="listens beyond this machine without authentication all the same"
    )
    behind_tls: bool = Field(
        False, description="a proxy ends TLS in front: browsers are told to use https alone from now on"
    )
    trusted_proxies: str = Field(
        "127.0.0.1", description="addresses or networks, with commas, of proxies whose X-Forwarded-For is believed"
    )
    cors_origins: str | None = Field(
        None, description="origins, with commas, whose pages may use the service, as https://app.example; unset: none"
    )
    rate_limit: str | None = Field(
        None,
        description="requests of one key, or of one address where there is none, as 600/minute; "
        "unset: 6000/minute with keys, no limit without authentication",
    )
    failed_limit: str = Field("20/minute", description="requests without a valid key of one address")
    limit_storage: str = Field(
        "memory://", description="where the limits count, for several servers: redis://HOST, as the limits package says"
    )
    web_page: bool = Field(True, description="serves the web page at /")
    docs_page: bool = Field(
        False, description="serves /docs, a page to try the API, whose code comes from a public network"
    )
    data_dir: Path = Field(Path("provenn-data"), description="folder of the database and the blobs; one server each")
    signing_keys: Path | None = Field(
        None, description="folder of the keys that sign certificates; unset: keys within data_dir"
    )
    signing_key_file: Path | None = Field(
        None, description="ed25519 private key (PEM) that signs instead of the folder's own, as of a mounted secret"
    )
    database: str | None = Field(
        None, description="sqlite:///PATH or postgresql://USER@HOST/NAME; unset: a file in the data directory"
    )
    database_password_file: Path | None = Field(
        None, description="file with the password of the database's user, as of a mounted secret"
    )
    blobs: str | None = Field(
        None,
        description="s3://BUCKET or s3://BUCKET/PREFIX, credentials as usual in AWS_...; or file:///FOLDER, which all "
        "machines share; unset: within data_dir",
    )
    blob_endpoint: str | None = Field(None, description="address of the S3-compatible store; unset: Amazon's")
    blob_region: str | None = Field(None, description="region of the bucket; unset: AWS_REGION, or us-east-1")
    cache_mb: int = Field(
        2048, ge=0, description="MiB of this machine's disk for copies of blobs from S3; what is in use comes on top"
    )
    retention_days: float | None = Field(
        None, ge=0, description="days after which provenn gc deletes a job that is over; unset: never"
    )
    device: str = Field("cpu", description="torch device jobs run on: cpu, cuda, cuda:1, ...")
    workers: int = Field(
        2, ge=0, description="jobs that run at the same time, each in a process of its own; 0: none, for others to run"
    )
    gpus: str | None = Field(
        None, pattern=r"^\d+(,\d+)*$", description="GPUs that jobs run on, such as 0,1: each worker sees one alone"
    )
    gpu_share: float = Field(
        1.0, gt=0, le=1, description="share of a GPU's memory that one worker may take: 0.5 puts two on each of `gpus`"
    )
    threads: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 1) // 2),
        ge=1,
        description="threads of each worker process; half the cores unless set",
    )
    memory_limit_mb: int | None = Field(
        None, ge=64, description="MiB of memory a worker may write beyond a warm one; unset: no limit (CPU only)"
    )
    job_seconds: float = Field(3600, gt=0, description="largest budget a job may ask for, in seconds")
    grace_seconds: float = Field(
        30, ge=0, description="seconds a worker gets beyond its job's budget before it is killed"
    )
    inspect_seconds: float = Field(60, gt=0, description="seconds reading one uploaded file may take")
    lease_seconds: float = Field(20, ge=1, description="seconds after which an unrenewed running job is queued again")
    poll_seconds: float = Field(
        0.5, gt=0, description="seconds between looks for what other machines have queued or cancelled"
    )
    drain_seconds: float = Field(
        10, ge=0, description="seconds that running jobs get to end when the service stops; then they are queued again"
    )
    part_items: int = Field(
        250, ge=0, description="a job falls into parts of at least so many items, for several workers; 0: never"
    )
    part_seconds: float = Field(
        30, ge=0, description="seconds after which a search by branch and bound falls into parts; 0: never"
    )
    upload_limit: int = Field(256 * MIB, ge=1, description="bytes of one model upload, multipart framing included")
    request_limit: int = Field(64 * MIB, ge=1, description="bytes of any other request body")
    max_queued: int | None = Field(None, ge=0, description="jobs of one key that may wait at a time; unset: no limit")
    max_bytes: int | None = Field(
        None, ge=0, description="bytes of networks and requests that one key may store; unset: no limit"
    )
    max_compute_seconds: float | None = Field(
        None, ge=0, description="seconds of workers that one key may use in a rolling day; unset: no limit"
    )
    idempotency_hours: float = Field(24, gt=0, description="hours for which an Idempotency-Key is remembered")
    webhook_private: bool = Field(
        False, description="webhooks may lead to private addresses and be plain http: for development"
    )
    max_items: int = Field(10_000, ge=1, description="inputs times radii in one job")
    inspect_memory_mb: int = Field(
        4096, ge=256, description="MiB of memory reading one uploaded file may take, or memory_limit_mb if that is less"
    )
    log_format: Literal["text", "json"] = Field("text", description="logs for people, or a JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    trace_endpoint: str | None = Field(
        None, description="OTLP address that OpenTelemetry traces go to, such as http://collector:4318; unset: none"
    )
    require_sandbox: str | None = Field(
        None, description="layers of the sandbox without which the service does not start: all, or names with commas"
    )

    @field_validator("rate_limit", "failed_limit", "limit_storage")
    @classmethod
    def _is_understood(cls, value: str | None, info: ValidationInfo) -> str | None:
        name = info.field_name or ""
        if value is not None and value != cls.model_fields[name].default:
            from provenn.api.windows import limit, windows  # takes longer than all the rest

            windows(value) if name == "limit_storage" else limit(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        for origin in _parts(value):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"'{origin}' is no origin, such as https://app.example")
        return value

    @property
    def origins(self) -> list[str]:
        """Of `cors_origins`."""
        return _parts(self.cors_origins)

    @property
    def gpu_numbers(self) -> list[int]:
        """Of `gpus`."""
        return [int(number) for number in _parts(self.gpus)]

    @property
    def job_device(self) -> str:
        """What jobs compute on, as they see it."""
        return "cuda" if self.gpus else self.device

    @property
    def database_url(self) -> str:
        """Of `database`, with the password of its file, or of the file in the data directory.

        Raises: UnusableDatabase if the password's file cannot be read.
        """
        if self.database is None:
            return f"sqlite:///{self.data_dir.resolve() / 'provenn.db'}"
        if self.database_password_file is None:
            return self.database
        from provenn.api.database import with_password  # takes longer than all the rest

        return with_password(self.database, self.database_password_file)


def _parts(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]
