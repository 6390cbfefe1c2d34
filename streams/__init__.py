"""The hall: everything that flows.

Read in this order: ``topics`` (what flows where), ``codec`` (as which bytes), ``agent`` and ``runner`` (the
port of an agent and the loop around it), ``agents/judge`` (from samples to decisions), ``pollers/loop``
(where samples come from). Only ``app`` and ``transport`` know Faust.
"""
