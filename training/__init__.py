"""Learning BYOL-A encoders from a folder of sound."""
