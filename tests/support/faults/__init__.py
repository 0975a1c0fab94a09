"""A server of objects that does everything wrong that a network, a service or a box in between can do, when told to.

It stands on `tests.support.wire`, the scripted raw server. In a test ``async with FaultServer(Plan([...])) as server``,
over a store of its own, or as a proxy in front of another server that passes everything on, faults excepted. As a
process, for whatever runs elsewhere: ``python -m tests.support.faults --port 0 --script FILE``.
"""
