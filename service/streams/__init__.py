"""Answers that leave while the rest is still computed."""
