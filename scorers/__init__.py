"""Pure judgement: no I/O, no clock, no randomness, no logging. The same code runs live and in replays.

Read in this order: ``assemble`` (samples of many sources become one tick), ``window`` and ``quantile`` (what
a gate sees of it), ``threshold`` (gates become verdicts), ``decision_machine`` (verdicts become decisions),
``fold`` (all of it as one step), ``replay`` (the same steps again, from what was stored).
"""
