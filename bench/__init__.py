"""Benchmarks: each module here is one command, ``python launch.py bench NAME``, that prints one JSON object."""
