"""What the service may use: addresses, folders, time, memory. Nothing here can change what is proved."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20


class Settings(BaseSettings):
    """Read from arguments, then from the environment: `PROVENN_PORT=9000` sets `port`."""

    model_config = SettingsConfigDict(env_prefix="PROVENN_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path("provenn-data"), description="folder of the database and the blobs; one server each")
    device: str = Field("cpu", description="torch device jobs run on: cpu, cuda, cuda:1, ...")
    workers: int = Field(2, ge=1, description="jobs that run at the same time, each in a process of its own")
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
    upload_limit: int = Field(256 * MIB, ge=1, description="bytes of one model upload, multipart framing included")
    request_limit: int = Field(64 * MIB, ge=1, description="bytes of any other request body")
    max_items: int = Field(10_000, ge=1, description="inputs times radii in one job")
