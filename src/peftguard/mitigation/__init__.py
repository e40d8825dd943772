"""Cleaning an adapter instead of throwing it away."""
