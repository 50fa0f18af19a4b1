"""Snapshot formats, one file each."""
