"""From samples to vectors and labels: what is served, batches across requests, self-tests."""
