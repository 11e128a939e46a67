"""The HTTP API: requests become domain values, results become JSON, and errors become problem documents.

Useful for: JSON of requests and answers (`schemas`), statuses (`problems`), request ids and keys (`middleware`), one
module of handlers for each resource (`routes`). Not useful for: how a search or an ingest works.
"""
