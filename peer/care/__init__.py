"""Keeping copies where they belong."""
