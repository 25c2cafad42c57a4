"""What gives work to workers: a queue in a folder, or one in PostgreSQL."""
