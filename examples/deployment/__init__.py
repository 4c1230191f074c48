"""The deployment guide, wired from the environment and at work.

`make run` or `python -m examples.deployment`. It serves a small HTTP workload
on loopback through limiter, cache, concurrency limit and timeouts, loads itself,
logs every request to a rotating file, and prints one live line of figures.
"""
