"""Audio files -> samples at 16 kHz, decoded in child processes with limited time and memory."""
