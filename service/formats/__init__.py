"""From vectors and labels to bytes, in our own shape and in those of other protocols."""
