"""The torch half of models: networks and their export."""
