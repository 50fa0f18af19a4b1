"""Particle snapshots, one file per format."""

from data_tools.snapshots.base import AbstractSnapshot, Slab
from data_tools.snapshots.coverage import Coverage
from data_tools.snapshots.detect import open_snapshot
from data_tools.snapshots.header import SnapshotHeader

__all__ = ["AbstractSnapshot", "Coverage", "Slab", "SnapshotHeader", "open_snapshot"]
