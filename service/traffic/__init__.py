"""Who may come, how much at once, for how long."""
