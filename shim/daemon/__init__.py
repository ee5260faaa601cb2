"""The phase's own daemon: where it is, and asking it."""
