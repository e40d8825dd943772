"""How well detectors do on a benchmark, measured so that the figures cannot flatter them."""
