"""The adapter that speaks Ultralytics HUB's protocol.

::

    adapter    the platform: which messages it has, and who answers them
    calls      requests, replies and refusals of the wire
    entities   projects, datasets, models, users
    records    what the wire tells as records of ours, and back
    selecting  filters and pages where the wire has none
    training   metrics and heartbeats
    weights    checkpoints, archives and project images
    work       predictions and exports
"""
