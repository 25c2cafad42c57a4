"""Self-supervised objectives, one method a file."""
