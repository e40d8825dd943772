"""Updates to numbers that depend on the update alone."""
