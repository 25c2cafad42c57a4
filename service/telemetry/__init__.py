"""What an operator sees: logs, metrics, traces, where the time went."""
