"""Readers of audio formats, a file each: where a part of a file ends, and the samples in it."""
