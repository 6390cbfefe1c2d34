"""The ground floor: the words of progressive delivery and their wire form. No I/O.

Read in this order: ``signal`` (what is counted), ``verdict`` (what the evidence says), ``decision`` (what we
do), ``policy`` (what the user asked for), ``rollout`` (what is going on), ``records`` (how it travels).
"""
