"""Access, quotas and limits: who may call, how much at once, and for how long."""
