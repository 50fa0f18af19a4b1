"""Adversarial objectives, one file each."""
