"""Parts that the API, the worker and the benchmarks build alike from the settings."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from service.api.key_ring import REFRESH_SECONDS, KeyRing
from service.core.periodic import in_background, repeat_every
from service.embedder.models.registry import ModelRegistry
from service.runtime.http_server import require_key_or_loopback
from service.runtime.settings import Settings
from service.spaces.model_verification import ModelVerifier
from service.store.postgres import store as postgres_store
from service.store.postgres.replicas import Replicas
from service.store.postgres.store import Store
from service.versions.promotion_checks import Measure, Prepare, PromotionChecks
from service.versions.state_machine import VersionStateMachine


def open_store(settings: Settings, url: str, name: str) -> AbstractAsyncContextManager[Store]:
    """`name`: of the process, as PostgreSQL lists its connections."""
    return postgres_store.open_store(
        url, name=name, pool_size=settings.pool_size, statement_timeout_seconds=settings.statement_timeout_seconds
    )


def replicas(settings: Settings, store: Store) -> Replicas | None:
    """None where searches read the primary alone."""
    if not settings.database_read_urls:
        return None
    return Replicas(
        primary=store.pool,
        urls=settings.database_read_urls,
        pool_size=settings.pool_size,
        statement_timeout=settings.statement_timeout_seconds,
        max_lag=settings.replica_lag_seconds,
    )


def model_registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(
        default=settings.embedder,
        allowed=settings.models,
        aliases={name: model for name, model in settings.aliases.items() if model != settings.reranker},
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        backend=settings.model_backend,
        exports=settings.data_dir / "models",
        encoder_url=settings.encoder_url,
        encoder_key=None if settings.encoder_key is None else settings.encoder_key.get_secret_value(),
    )


def model_verifier(store: Store, models: ModelRegistry) -> ModelVerifier:
    return ModelVerifier(collections=store.collections, versions=store.versions, embedders=models)


def state_machine(
    settings: Settings,
    store: Store,
    verifier: ModelVerifier,
    *,
    measure: Measure | None = None,
    prepare: Prepare | None = None,
) -> VersionStateMachine:
    """Without `measure` it builds versions but leaves verifying them to processes that can search."""
    checks = PromotionChecks(
        collections=store.collections,
        versions=store.versions,
        backfills=store.backfills,
        test_sets=store.test_sets,
        processes=store.processes,
        verifier=verifier,
        measure=measure,
        prepare=prepare,
    )
    return VersionStateMachine(
        versions=store.versions,
        backfills=store.backfills,
        queue=store.queue,
        verifier=verifier,
        checks=checks,
        exact_below=settings.exact_below,
    )


@asynccontextmanager
async def open_key_ring(settings: Settings, store: Store) -> AsyncIterator[KeyRing]:
    """The keys of the settings and of the database, kept up to date. Misconfigured where the network needs one."""
    keys = KeyRing([key.get_secret_value() for key in settings.api_keys], store.api_keys)
    await keys.refresh()
    require_key_or_loopback(settings, has_keys=keys.required)
    async with in_background(repeat_every("keys", REFRESH_SECONDS, keys.refresh)):
        yield keys
