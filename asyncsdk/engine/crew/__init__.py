"""Worker processes: several event loops, each in an interpreter of its own, that move what one parent gives them.

`crew` holds the workers and decides who gets what, `shift` is what they do for one run, `processes` starts and ends
them, `wire` is what crosses the pipes, `worker` is the other side. Nothing of it is imported with one process.
"""
