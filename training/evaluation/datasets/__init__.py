"""Standard collections of labelled sound, read from a local copy by their own metadata."""
