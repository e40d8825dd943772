"""Bytes to low-rank updates: sources, containers, names, methods."""
