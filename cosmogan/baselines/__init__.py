"""Mocks that need no training: what an emulator has to beat."""
