"""Doors: the protocols of other services, answered by this platform, so that their own clients can be pointed at it.

::

    registry    which there are
    host        what every door stands on: who asks, handlers, replies, errors
    routes      which function answers which path
    forms       multipart forms, read while they come
    staging     one file of a form on its way into the object store

A door translates a service's requests into messages and back; it has no state and no rights of its own. Off unless
named.
"""
