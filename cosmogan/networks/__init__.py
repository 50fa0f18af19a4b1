"""Generators and critics, one file per architecture."""
