"""The door that speaks Ultralytics HUB's protocol: ``hub-sdk`` works against it unmodified.

::

    door      paths, keys, errors
    entities  projects, datasets, models, users: create, read, list, change, delete
    files     weights, dataset archives, project images
    training  metrics and heartbeats
    work      export and predict
"""
