"""Labelled clips: tables and folders of them, and who of them trains, validates and tests."""
