"""analyzed-shim: keep a daemon build's run image in the daemon at Platform API 0.10 and 0.11."""

__version__ = "0.1.0"
