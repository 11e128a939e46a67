"""Every metric of the service, declared once. Labels are bounded: collections, stages, versions; never texts."""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

REQUESTS = Histogram(
    "azimuth_http_request_seconds", "HTTP requests by route template.", ["method", "route", "status"], buckets=_LATENCY
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
DEGRADED = Counter("azimuth_degraded_total", "Answers in which a stage could not do its part.", ["stage", "reason"])
STALE_HITS = Counter(
    "azimuth_stale_hits_total",
    "Candidates dropped because their document changed after they were indexed.",
    ["collection"],
)
QUERY_CONFIDENCE = Histogram(
    "azimuth_query_confidence",
    "Probability that the question of a search is one for the collection.",
    ["collection"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
)
WITHHELD = Counter(
    "azimuth_withheld_total",
    "Answers without hits because the question is hardly one for the collection.",
    ["collection"],
)
UNDERFILLED = Counter(
    "azimuth_underfilled_total", "Answers with fewer hits than asked for although more documents pass.", ["collection"]
)

QUEUE_PENDING = Gauge("azimuth_queue_pending", "Documents that wait for the embedder.", ["collection"])
QUEUE_FAILED = Gauge("azimuth_queue_failed", "Documents that were set aside.", ["collection"])
QUEUE_OLDEST = Gauge("azimuth_queue_oldest_seconds", "Age of the oldest waiting document.", ["collection"])
LEXICAL_LAG = Gauge(
    "azimuth_lexical_lag_seconds", "Age of the oldest committed change that lexical search cannot see.", ["collection"]
)
VERSION_STATE = Gauge(
    "azimuth_version_state", "1 for the state an embedder version is in.", ["collection", "version", "state"]
)
BACKFILL_REMAINING = Gauge(
    "azimuth_backfill_remaining", "Documents that a new version still lacks.", ["collection", "version"]
)
PROMOTIONS = Counter("azimuth_promotions_total", "Promotions asked for, by outcome.", ["collection", "outcome"])
SHADOW_SEARCHES = Counter(
    "azimuth_shadow_searches_total", "Live searches answered again by a candidate version.", ["collection", "version"]
)
SHADOW_OVERLAP = Gauge(
    "azimuth_shadow_overlap_at_10",
    "Mean share of the active version's first 10 hits that the candidate gives too.",
    ["collection", "version"],
)
CANARY_COSINE = Gauge(
    "azimuth_canary_cosine", "Lowest cosine of the canary texts to their registered vectors.", ["collection", "version"]
)
EF_SEARCH = Gauge(
    "azimuth_ef_search", "ef_search that was chosen for searches without a filter.", ["collection", "version"]
)
RECALL_TARGET = Gauge("azimuth_recall_target", "Recall at 10 that searches along an index are to have.", ["collection"])
RECALL_TARGET_MISSED = Gauge(
    "azimuth_recall_target_missed",
    "1 where not even the largest ef_search holds it.",
    ["collection", "version"],
)
DEAD_ROWS = Gauge("azimuth_dead_rows", "Dead rows in the table of a version.", ["collection", "version"])
VECTORS = Gauge("azimuth_vectors", "Rows in the table of a version, without dead ones.", ["collection", "version"])
INDEX_BYTES = Gauge("azimuth_index_bytes", "Size of the HNSW index of a version.", ["collection", "version"])

_RECALL = ["collection", "version", "plan", "band"]
RECALL = Gauge(
    "azimuth_recall_at_k",
    "Mean recall@10 of live searches by this process that were run again exactly, of the last half hour.",
    _RECALL,
)
DISTANCE_RECALL = Gauge(
    "azimuth_distance_recall_at_k", "The same, where a find as near as the tenth true one counts as good.", _RECALL
)
RECALL_SAMPLES = Counter("azimuth_recall_samples", "Live searches whose recall is known.", _RECALL)
LEXICAL_RECALL = Gauge(
    "azimuth_lexical_recall_at_k",
    "Mean recall@10 of live queries among sampled documents, against exact BM25, of the last half hour.",
    ["collection"],
)
PROBES = Counter("azimuth_probes", "Live searches that were looked at again, by outcome.", ["outcome"])
PROBE_SECONDS = Counter("azimuth_probe_seconds", "Time that was spent to look at live searches again.")

EMBEDDED_CHUNKS = Counter("azimuth_embedded_chunks_total", "Chunks encoded and stored.", ["collection", "version"])
EMBEDDED_TOKENS = Counter("azimuth_embedded_tokens_total", "Tokens encoded, padding excluded.", ["role"])
EMBED_BATCH_SECONDS = Histogram(
    "azimuth_embed_batch_seconds", "One forward pass of the embedder.", ["role"], buckets=_BATCH
)
EMBED_BATCH_TEXTS = Histogram(
    "azimuth_embed_batch_texts", "Texts in one forward pass.", ["role"], buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
TRUNCATED_CHUNKS = Counter(
    "azimuth_truncated_chunks_total", "Chunks longer than the embedder takes, cut.", ["collection", "version"]
)
DOCUMENTS_WRITTEN = Counter(
    "azimuth_documents_written_total", "Documents written by clients.", ["collection", "status"]
)
DOCUMENTS_SET_ASIDE = Counter(
    "azimuth_documents_set_aside_total", "Documents that the worker gave up on.", ["collection"]
)
FENCED_WRITES = Counter(
    "azimuth_fenced_writes_total",
    "Finished work dropped because the document changed or the lease was lost.",
    ["collection"],
)
WORKER_BACKOFF = Counter(
    "azimuth_worker_backoff_total", "Pauses of the worker because of trouble that is no document's fault.", ["cause"]
)
RERANKED_PAIRS = Counter("azimuth_reranked_pairs_total", "Pairs scored by the cross-encoder.")
RERANK_SKIPPED = Counter(
    "azimuth_rerank_skipped_pairs_total", "Pairs left unread because they could no longer change the answer."
)
RERANK_TRUNCATED = Counter(
    "azimuth_rerank_truncated_pairs_total", "Pairs longer than the cross-encoder takes, cut before it read them."
)
RERANK_PASS_SECONDS = Histogram("azimuth_rerank_pass_seconds", "One forward pass of the cross-encoder.", buckets=_BATCH)

DRIFT = Gauge(
    "azimuth_drift",
    "How far live queries are from the collection, or from those before; of this process.",
    ["collection", "measure"],
)
DRIFT_VERDICT = Gauge(
    "azimuth_drift_verdict",
    "The worst that was said of live queries when they were last looked at: 0 healthy, 1 watch, 2 broken.",
    ["collection"],
)
GEOMETRY_VERDICT = Gauge(
    "azimuth_geometry_verdict",
    "What the last diagnosis said of the space of a version: 0 healthy, 1 watch, 2 broken.",
    ["collection", "version"],
)
_OF_INDEX = (EF_SEARCH, RECALL_TARGET_MISSED, DEAD_ROWS, VECTORS, INDEX_BYTES, GEOMETRY_VERDICT)


def remove_version(collection: str, version: str) -> None:
    """The version is retired: what its index was like is over."""
    for gauge in _OF_INDEX:
        gauge.remove_by_labels({"collection": collection, "version": version})


def remove_collection(collection: str) -> None:
    """Take back what gauges say of a deleted collection: an alert on its backlog would never end."""
    gauges = (QUEUE_PENDING, QUEUE_FAILED, QUEUE_OLDEST, VERSION_STATE, CANARY_COSINE, RECALL_TARGET, *_OF_INDEX)
    for gauge in (
        *gauges,
        BACKFILL_REMAINING,
        SHADOW_OVERLAP,
        RECALL,
        DISTANCE_RECALL,
        LEXICAL_RECALL,
        DRIFT,
        DRIFT_VERDICT,
    ):
        gauge.remove_by_labels({"collection": collection})
