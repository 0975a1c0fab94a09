"""Requests and replies of other services as data, each used by its adapter and its door. No I/O."""
