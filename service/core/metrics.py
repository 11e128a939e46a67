"""Every metric of the service. Labels have few values (collections, stages, versions) and never contain texts."""

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

_COLLECTION = ["collection"]
_VERSION = ["collection", "version"]
_RECALL = ["collection", "version", "plan", "band"]
_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

REQUESTS = Histogram(
    "azimuth_http_request_seconds", "HTTP requests by route template.", ["method", "route", "status"], buckets=_LATENCY
)
ADMISSION_LIMIT = Gauge(
    "azimuth_admission_limit", "Requests to a route that are admitted at once; others get 429.", ["route"]
)
SEARCH_SECONDS = Histogram(
    "azimuth_search_seconds",
    "Whole searches, by the embedder version that answered.",
    ["collection", "version", "mode"],
    buckets=_LATENCY,
)
SEARCH_STAGE_SECONDS = Histogram(
    "azimuth_search_stage_seconds", "Searches by stage.", ["collection", "stage"], buckets=_LATENCY
)
DEGRADED = Counter("azimuth_degraded_total", "Answers in which a stage failed or was skipped.", ["stage", "reason"])
STALE_HITS = Counter(
    "azimuth_stale_hits_total",
    "Candidates dropped because their document changed after they were indexed.",
    _COLLECTION,
)
LONG_TEXTS = Counter(
    "azimuth_long_texts_total",
    "Texts sent to be encoded that are longer than the model takes, by what became of them.",
    ["handling"],
)
QUERY_CONFIDENCE = Histogram(
    "azimuth_query_confidence",
    "Probability that the collection can answer a query.",
    _COLLECTION,
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
)
BACKGROUND_FAILURES = Counter(
    "azimuth_background_failures_total", "Failed runs of background tasks; each runs again.", ["task"]
)
WITHHELD = Counter("azimuth_withheld_total", "Answers without hits because the confidence was too low.", _COLLECTION)
UNDERFILLED = Counter(
    "azimuth_underfilled_total", "Answers with fewer hits than requested although more documents match.", _COLLECTION
)

DISK_FREE = Gauge("azimuth_disk_free_bytes", "Free space on the disk of the data folder.")
DISK_RESERVE = Gauge(
    "azimuth_disk_reserve_bytes", "Free space below which nothing more is written to the disk of the data folder."
)
QUEUE_PENDING = Gauge("azimuth_queue_pending", "Documents that wait for the embedder.", _COLLECTION)
WITHOUT_VECTOR = Gauge(
    "azimuth_documents_without_vector", "Documents whose client did not bring a vector yet.", _COLLECTION
)
QUEUE_FAILED = Gauge("azimuth_queue_failed", "Documents that were set aside.", _COLLECTION)
QUEUE_OLDEST = Gauge("azimuth_queue_oldest_seconds", "Age of the oldest waiting document.", _COLLECTION)
LEXICAL_LAG = Gauge(
    "azimuth_lexical_lag_seconds", "Age of the oldest committed change that lexical search cannot see.", _COLLECTION
)
REPLICA_LAG = Gauge("azimuth_replica_lag_seconds", "How far a replica is behind the primary.", ["replica"])
REPLICA_SEARCHES = Counter(
    "azimuth_replica_searches_total", "Searches by the server that they read: a replica or the primary.", ["replica"]
)
DATABASE_RESTORED = Counter(
    "azimuth_database_restored_total",
    "How often this process found another state of its database (a restore, another server) and read it anew.",
)
LEXICAL_REBUILDS = Counter(
    "azimuth_lexical_rebuilds_total",
    "Lexical indexes that were begun: new ones, damaged ones, and after the database was restored.",
    ["reason"],
)
VERSION_STATE = Gauge(
    "azimuth_version_state", "1 for the state an embedder version is in.", ["collection", "version", "state"]
)
BACKFILL_REMAINING = Gauge("azimuth_backfill_remaining", "Documents that a new version still lacks.", _VERSION)
PROMOTIONS = Counter("azimuth_promotions_total", "Requested promotions, by outcome.", ["collection", "outcome"])
SHADOW_SEARCHES = Counter(
    "azimuth_shadow_searches_total", "Live searches answered again by a candidate version.", _VERSION
)
SHADOW_OVERLAP = Gauge(
    "azimuth_shadow_overlap_at_10",
    "Mean share of the active version's first 10 hits that the candidate returns as well.",
    _VERSION,
)
QUERY_VECTORS = Counter(
    "azimuth_query_vectors_total", "Queries whose vector was kept in memory (`hit`), or made (`miss`).", ["result"]
)
MODEL_BACKEND = Gauge(
    "azimuth_model_backend",
    "1 for what runs the passes of a model: `torch`, `onnx_float32` or `onnx_int8`.",
    ["model", "use", "backend"],
)
CANARY_COSINE = Gauge(
    "azimuth_canary_cosine", "Lowest cosine of the canary texts to their registered vectors.", _VERSION
)
EF_SEARCH = Gauge("azimuth_ef_search", "The ef_search chosen for searches without a filter.", _VERSION)
RECALL_TARGET = Gauge("azimuth_recall_target", "Target of recall@10 for searches that use an index.", _COLLECTION)
RECALL_TARGET_MISSED = Gauge(
    "azimuth_recall_target_missed", "1 where even the largest ef_search misses the recall target.", _VERSION
)
DEAD_ROWS = Gauge("azimuth_dead_rows", "Dead rows in the table of a version.", _VERSION)
VECTORS = Gauge("azimuth_vectors", "Rows in the table of a version, without dead ones.", _VERSION)
INDEX_BYTES = Gauge("azimuth_index_bytes", "Size of the HNSW index of a version.", _VERSION)

RECALL = Gauge(
    "azimuth_recall_at_k",
    "Mean recall@10 of live searches of this process, against exact scans, over the last half hour.",
    _RECALL,
)
DISTANCE_RECALL = Gauge(
    "azimuth_distance_recall_at_k",
    "The same, where every chunk as near as the tenth true one counts as found.",
    _RECALL,
)
RECALL_SAMPLES = Counter("azimuth_recall_samples", "Live searches whose recall was measured.", _RECALL)
LEXICAL_RECALL = Gauge(
    "azimuth_lexical_recall_at_k",
    "Mean recall@10 of live queries among sampled documents, against exact BM25, over the last half hour.",
    _COLLECTION,
)
PROBES = Counter("azimuth_probes", "Recall probes of live searches, by outcome.", ["outcome"])
PROBE_SECONDS = Counter("azimuth_probe_seconds", "Time spent on recall probes.")

EMBEDDED_CHUNKS = Counter("azimuth_embedded_chunks_total", "Chunks encoded and stored.", _VERSION)
EMBEDDED_TOKENS = Counter("azimuth_embedded_tokens_total", "Tokens encoded, padding excluded.", ["role"])
EMBED_BATCH_SECONDS = Histogram(
    "azimuth_embed_batch_seconds", "One forward pass of the embedder.", ["role"], buckets=_BATCH
)
EMBED_BATCH_TEXTS = Histogram(
    "azimuth_embed_batch_texts", "Texts in one forward pass.", ["role"], buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
TRUNCATED_CHUNKS = Counter(
    "azimuth_truncated_chunks_total", "Chunks cut to the maximum length of the embedder.", _VERSION
)
DOCUMENTS_WRITTEN = Counter(
    "azimuth_documents_written_total", "Documents written by clients.", ["collection", "status"]
)
DOCUMENTS_SET_ASIDE = Counter("azimuth_documents_set_aside_total", "Documents that the worker set aside.", _COLLECTION)
FENCED_WRITES = Counter(
    "azimuth_fenced_writes_total",
    "Finished work dropped because the document changed or the lease was lost.",
    _COLLECTION,
)
WORKER_BACKOFF = Counter(
    "azimuth_worker_backoff_total", "Pauses of the worker because of errors that no document caused.", ["cause"]
)
RERANKED_PAIRS = Counter("azimuth_reranked_pairs_total", "Pairs scored by the cross-encoder.")
RERANK_SKIPPED = Counter(
    "azimuth_rerank_skipped_pairs_total", "Pairs not scored because they could no longer change the answer."
)
RERANK_TRUNCATED = Counter(
    "azimuth_rerank_truncated_pairs_total", "Passages cut to the maximum length of the cross-encoder."
)
RERANK_PASS_SECONDS = Histogram("azimuth_rerank_pass_seconds", "One forward pass of the cross-encoder.", buckets=_BATCH)

DRIFT = Gauge(
    "azimuth_drift",
    "Distance of live queries of this process from the collection, or from earlier queries.",
    ["collection", "measure"],
)
DRIFT_VERDICT = Gauge(
    "azimuth_drift_verdict", "Worst verdict of the last drift report: 0 healthy, 1 watch, 2 broken.", _COLLECTION
)
GEOMETRY_VERDICT = Gauge(
    "azimuth_geometry_verdict",
    "Verdict of the last diagnosis of a version's space: 0 healthy, 1 watch, 2 broken.",
    _VERSION,
)

_OF_INDEX = (EF_SEARCH, RECALL_TARGET_MISSED, DEAD_ROWS, VECTORS, INDEX_BYTES, GEOMETRY_VERDICT)
_OF_COLLECTION = [
    metric
    for metric in list(vars().values())
    if isinstance(metric, MetricWrapperBase) and metric._labelnames[:1] == ("collection",)
]


def remove_version(collection: str, version: str) -> None:
    """Remove the gauges of a retired version's index."""
    for gauge in _OF_INDEX:
        gauge.remove_by_labels({"collection": collection, "version": version})


def remove_collection(collection: str) -> None:
    """Remove all series of a deleted collection: they would be kept, and their alerts go on, for ever."""
    for metric in _OF_COLLECTION:
        metric.remove_by_labels({"collection": collection})


def measured_collections() -> set[str]:
    """The names of the collections that have any series."""
    return {labels[0] for metric in _OF_COLLECTION for labels in list(metric._metrics)}
