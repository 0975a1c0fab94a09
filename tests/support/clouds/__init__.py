"""In-process servers that speak a cloud's upload protocol as it is documented, each on `HttpServer`: scripts and all.

They check what the real ones check (digests, block names, offsets, preconditions, expiry by their own clock) and keep
what arrived. `kinds` puts one face before them, and before real servers, for the contract suite.
"""
