"""Particle snapshots, one file per format."""

from data_tools.snapshots.base import AbstractSnapshot, SnapshotHeader
from data_tools.snapshots.detect import open_snapshot

__all__ = ["AbstractSnapshot", "SnapshotHeader", "open_snapshot"]
