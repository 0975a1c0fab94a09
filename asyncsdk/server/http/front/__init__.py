"""The server's own HTTP/1.1 on sockets: objects' bytes by signed URL itself, all else through the ASGI application.

::

    listener     accepts, closes what waits too long, shuts down
    connection   one connection: what is asked, and who answers it
    exchange     what all answers have in common: replies, refusals, timeouts, the end
    stream       the non-blocking socket below
    heads        the head of a request, strictly
    framing      where a body ends: by length or in chunks
    rendering    the head of a reply
    objects      what PUT, GET and HEAD of an object ask for, and what is answered
    pumps        large bodies between socket and file, in threads
    pumping      running them
    pace         whether files answer fast enough to be used in the loop
    handover     one request handed to the ASGI application
    shared       what all connections share
"""

from asyncsdk.server.http.front.listener import Front, Limits

__all__ = ["Front", "Limits"]
