"""The demonstration: an embedded registry, an embedded engine and a stand-in lifecycle."""
