"""HTTP for bulk bytes: one small Protocol, and its implementations."""
