"""The commands of the serving half."""
