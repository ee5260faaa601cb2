"""Deciding, without I/O, clock or environment."""
