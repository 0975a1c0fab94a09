"""The blocking entities, one module for each of `asyncsdk.entities`; all generated."""
