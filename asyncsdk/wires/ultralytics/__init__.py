"""The wire of Ultralytics HUB as data: what its client ``hub-sdk`` 0.0.25 sends, and what it reads.

::

    paths      where things live, listings, the envelope of every answer
    entities   projects, datasets and models: bodies of requests, data of answers
    forms      the multipart forms that carry files
    training   metrics and heartbeats
    work       export and predict

The service shut down on 31 July 2026; what its answers held beyond what the client reads is not known any more. Fields
that are ours are marked as such.
"""
