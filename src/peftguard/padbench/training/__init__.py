"""Trainers: many adapters at once over one frozen base, and the plain road that they equal."""
