"""What becomes of requests when something misbehaves: a table a file."""
