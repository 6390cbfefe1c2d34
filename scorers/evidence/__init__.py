"""The evidence judge: sequential tests whose promises hold however often one looks.

Read in this order: ``effects`` (the grids), ``null`` (what healthy is), ``kernel`` (the canary against
stable), ``limits`` (the canary against its limit), ``bounds`` (how much worse it is), ``layout`` (what a gate
remembers), ``claims`` (what a step has to prove), ``gates`` (one gate), ``combine`` (one rollout), ``judge``.
"""
