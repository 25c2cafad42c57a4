"""The output formats, a file each, with its `FORMAT`; `service/output_names.py` finds them here."""
