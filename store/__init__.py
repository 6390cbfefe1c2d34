"""Remembering. The database is authoritative, Redis is a cache of it, and the log can fill both again.

Read in this order: ``models`` (the tables), ``database`` (opening them), ``repository`` (the one door to
rollouts), ``batch`` and ``projection`` (what a record of the log changes), ``journal`` and ``leases`` (who
may move traffic, and how far that got), ``writer``, ``live``, ``archive``.
"""
