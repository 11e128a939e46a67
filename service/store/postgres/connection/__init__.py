"""Connections, statements and locks: what every adapter stands on."""
