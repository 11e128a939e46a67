"""Settings of the service and of the commands, from the environment (`AZIMUTH_*`) and a file in TOML.

Environment variables win over the file. docs/settings.md lists the settings, and where the file is looked for.
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, TomlConfigSettingsSource

from service.core.errors import Misconfigured, raised_as

CONFIG = "AZIMUTH_CONFIG"
"""The variable that names the file; `--config` sets it, so that child processes read the same."""

NO_RERANKER = "none"
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]
"""As browsers send it: scheme, host and port, without a slash at the end."""
Host = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f.:]+(/\d{1,3})?)$")]
"""A name, `*.` and a name, an address, a network, or `*`: without scheme and port."""

ImageHost = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*(:\d+)?$")]
"""A name, or `*.` and a name, and a port."""

Alias = Annotated[str, Field(pattern=r"^[^=\s]+=[^=\s]+$")]
"""A name that clients send, `=`, and the model that it means."""


def _sendable(key: SecretStr) -> SecretStr:
    """Without the line break that files end with. Clients refuse to send others, and show the key as they do."""
    value = key.get_secret_value().strip()
    if not value.isprintable():
        raise ValueError("has control characters, which no header can carry")
    return SecretStr(value)


Key = Annotated[SecretStr, AfterValidator(_sendable)]


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


T = TypeVar("T")
Listed = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
"""Separated by commas."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="AZIMUTH_", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    url: str | None = Field(
        None, description="Address of the service that commands talk to; none: the one at `host` and `port`."
    )
    key: Key | None = Field(None, description="API key that commands send; none: the first of `api_keys`.")
    database_url: str | None = Field(
        None, description="PostgreSQL to use; none: an embedded server in the data folder."
    )
    database_read_urls: Listed[str] = Field(
        (), description="Comma-separated streaming replicas of that PostgreSQL, which searches read."
    )
    replica_lag_seconds: float = Field(
        5.0, gt=0, le=300, description="How far a replica may be behind for searches to read it, and not the primary."
    )
    data_dir: Path = Field(Path("azimuth-data"), description="Lexical indexes and the embedded server live here.")
    host: str = Field("127.0.0.1", description="Address to listen on. Without an API key only loopback is accepted.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API and the console.")
    worker_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of a worker's /metrics and /livez; 0: none, under `azimuth up` a free one after the API's.",
    )
    drain_seconds: float = Field(
        0.0, ge=0, le=300, description="How long a stopped API goes on answering, not ready, while balancers turn away."
    )
    api_keys: Listed[Key] = Field((), description="Comma-separated keys; a request must carry one as a bearer token.")
    cors_origins: Listed[Origin] = Field(
        (), description="Comma-separated origins of pages that may use the API, `https://app.example.com`; `*`: all."
    )
    allowed_hosts: Listed[Host] = Field(
        (),
        description="Comma-separated host names by which clients reach the service, `*.example.com`; none: on loopback "
        "those of loopback, elsewhere all. Where it listens beyond loopback, addresses are allowed as well.",
    )
    trusted_proxies: Listed[IPvAnyNetwork] = Field(
        (), description="Comma-separated addresses and networks of proxies whose `X-Forwarded-For` and `-Proto` count."
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file with the certificate chain: the service speaks TLS. It is read again when it changes.",
    )
    tls_key: Path | None = Field(None, description="PEM file with its key; none: it is in the file of the certificate.")
    expose_metrics: bool = Field(True, description="Whether there is /metrics.")
    expose_docs: bool = Field(True, description="Whether there are /docs and /openapi.json.")
    mcp_writes: bool = Field(
        False, description="Whether agents may also write and delete documents by MCP, with a key that may."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")

    embedder: str = Field(
        "all-MiniLM-L6-v2",
        description="Model of new collections that name none; `multilingual`: from the extra of that name.",
    )
    models: Listed[str] = Field(
        (), description="Comma-separated models (hub ids or folders) that collections may name besides the default."
    )
    model_aliases: Listed[Alias] = Field(
        (), description="Comma-separated other names of models: `text-embedding-3-small=all-MiniLM-L6-v2`."
    )
    long_texts: Literal["truncate", "chunk-mean", "refuse"] | None = Field(
        None,
        description="What becomes of texts to encode that are too long: `truncate`, `chunk-mean` or `refuse`; none: "
        "what is usual in each API. See [long texts](api.md#long-texts).",
    )
    reranker: str = Field(
        "azimuth-minilm-l6", description="Cross-encoder: the bundled one, a hub id, or a folder; `none`: no reranking."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the device computes in it, float32 elsewhere."
    )
    model_backend: Literal["auto", "torch", "onnx"] = Field(
        "auto",
        description="What runs embedders and the reranker on CPU: PyTorch, ONNX Runtime, or what is faster here, "
        "measured at the first use and remembered in the data folder.",
    )
    encoder_url: str | None = Field(
        None, description="Another Azimuth that encodes instead of this one; both must know the same models."
    )
    encoder_key: Key | None = Field(None, description="API key for AZIMUTH_ENCODER_URL.")
    check_seconds: float = Field(30.0, ge=1, description="How often running processes verify their models.")
    threads: int = Field(0, ge=0, description="Threads of a model on CPU; 0: all cores.")

    traces_endpoint: str | None = Field(
        None,
        description="Where traces go (OTLP over HTTP): http://collector:4318/v1/traces; needs the extra `tracing`.",
    )

    pool_size: int = Field(10, ge=2, le=200, description="Database connections of one process.")
    statement_timeout_seconds: float = Field(15.0, gt=0, description="Longest statement on behalf of a request.")

    exact_below: int = Field(7_500, ge=0, description="Chunks up to which a version is scanned exactly, without HNSW.")
    passing_cap: int = Field(
        50_000, ge=1, description="Most documents that match a filter and are listed by id for an exact scan."
    )
    max_concurrent_searches: int = Field(
        64, ge=1, description="Most searches, and most requests to any one route, at once; the limit adapts below this."
    )
    budget_ms: float = Field(
        15_000.0, ge=0, le=60_000, description="`budget_ms` of a search that brings none; 0: none."
    )

    max_connections: int = Field(
        1_000, ge=1, description="Connections of clients at once; a new one then replaces one that is idle."
    )
    header_timeout_seconds: float = Field(10.0, gt=0, description="Longest time that the headers of a request take.")
    body_timeout_seconds: float = Field(
        60.0, gt=0, description="Longest wait for a body, and a second more for every 500 bytes of it that came."
    )
    keep_alive_seconds: int = Field(
        75, ge=1, description="How long an idle connection is kept; longer than clients and proxies keep theirs."
    )

    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="Largest JSON body; NDJSON streams have no limit.")
    max_line_bytes: int = Field(8 * 2**20, ge=1024, description="Longest line of an NDJSON stream.")
    max_upload_bytes: int = Field(100 * 2**20, ge=1024, description="Largest upload of files, packed or not.")
    max_text_length: int = Field(1_000_000, ge=1, description="Longest text of a document, in code points.")
    max_image_bytes: int = Field(5 * 2**20, ge=1024, description="Largest image of a document or query.")
    max_image_pixels: int = Field(40_000_000, ge=1, description="Most pixels of an image, width times height.")
    image_hosts: Listed[ImageHost] = Field(
        (), description="Comma-separated hosts, `img.example.com:8080`, `*.example.com`, from which images are fetched."
    )
    max_batch: int = Field(1_000, ge=1, le=10_000, description="Most documents in one JSON request.")

    batch_tokens: int = Field(0, ge=0, description="Tokens in one forward pass of the worker; 0: by device.")
    claim: int = Field(512, ge=1, le=10_000, description="Documents that a worker leases at once.")
    lease_seconds: float = Field(
        60.0, gt=1, description="How long a worker may be silent before its documents are given to others."
    )
    max_attempts: int = Field(3, ge=1, description="Attempts before a document is set aside.")

    backfill_per_second: float = Field(
        0.0, ge=0, description="Most documents that one worker encodes each second for backfills; 0: no limit."
    )
    shadow_share: float = Field(
        0.05, ge=0, le=1, description="Share of live searches that a candidate version answers as well."
    )

    probe_share: float = Field(
        1.0, ge=0, le=1, description="Share of live searches that may be run again exactly, to measure recall."
    )
    probe_budget_ms: float = Field(
        600.0, ge=0, le=60_000, description="Time of each minute that one process may spend on recall probes; 0: none."
    )
    drift_seconds: float = Field(
        600.0, gt=0, description="Least time span of the latest live queries when they are compared for drift."
    )
    feedback_days: int = Field(365, ge=1, le=36_500, description="How long marked queries are kept, in days.")

    @classmethod
    def settings_customise_sources(cls, *_: Any, init_settings: Any, env_settings: Any, **__: Any) -> Any:  # type: ignore[override]
        return init_settings, env_settings, _of_file(cls)

    @classmethod
    def origins(cls) -> dict[str, str]:
        """Where each setting that is no default comes from: `environment`, or the path of the file."""
        set_there = [name for name in cls.model_fields if os.environ.get(f"AZIMUTH_{name.upper()}")]
        return dict.fromkeys(_of_file(cls)(), str(config_file())) | dict.fromkeys(set_there, "environment")

    @property
    def service_url(self) -> str:
        """Where commands find the service."""
        return self.url or self.address()

    @property
    def client_key(self) -> str | None:
        """What commands send."""
        key = self.key or next(iter(self.api_keys), None)
        return None if key is None else key.get_secret_value()

    @property
    def aliases(self) -> dict[str, str]:
        """The models that other names mean."""
        return dict(alias.split("=") for alias in self.model_aliases)

    def address(self, port: int | None = None) -> str:
        """The URL at which a client on this machine reaches the API, or a process of the service on another port."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 compared with, not bound to
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port if port is None else port}"


def config_file() -> Path | None:
    """The file that AZIMUTH_CONFIG names, or the first of the usual ones that there is."""
    if named := os.environ.get(CONFIG):
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return next((one for one in (Path("azimuth.toml"), home / "azimuth" / "config.toml") if one.is_file()), None)


def _of_file(settings: type[BaseSettings]) -> TomlConfigSettingsSource:
    """Misconfigured where the file cannot be read, or has a name that is no setting."""
    file = config_file()
    with raised_as(Misconfigured, f"{file} cannot be read", OSError, ValueError):
        if file is not None:
            file.open("rb").close()  # the source takes a file that is missing for an empty one
        source = TomlConfigSettingsSource(settings, file)
    for name in source.toml_data:
        if name not in settings.model_fields:
            near = get_close_matches(name.lower().removeprefix("azimuth_"), settings.model_fields, 1, 0)
            raise Misconfigured(f"{file}: there is no setting {name}; the nearest is {near[0]}")
    return source
