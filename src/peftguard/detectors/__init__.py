"""Numbers to a score: one detector a file, found through entry points."""
