"""A server on real sockets that says any bytes in any pieces, and ends its connections in any way."""
