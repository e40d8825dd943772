"""Findings and scores to one verdict."""
