"""The HTTP edge: what comes in becomes domain values, what goes out becomes JSON, what fails becomes one error shape.

Useful for: wire shapes (`schemas`, `answers`), statuses (`failures`), requests and keys (`middleware`), one module of
handlers for each resource. Not useful for: how a search or an ingest works; handlers call the stories and no more.
"""
