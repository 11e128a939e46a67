"""Connections, statements and locks, which every adapter uses."""
