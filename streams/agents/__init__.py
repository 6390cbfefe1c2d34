"""The agents: each a fold over some topics, with the loop, the broker and the clock given to it.

``judge`` turns samples into decisions, ``actuate`` carries decisions out, ``record`` remembers. Their
outputs are lists of records; what sends them is ``streams.runner``.
"""
