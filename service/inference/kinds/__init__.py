"""The kinds of model files, a file each, with its `KIND`; `catalogue.py` finds them here."""
