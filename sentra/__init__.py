"""The roof: what people touch, and the only place that knows everybody.

``cli`` is the command line, ``roles`` what a worker consists of, ``embedded`` the stack for one machine and
the demo, ``config`` the settings. The rooms below: ``streams``, ``scorers``, ``actuators``, ``store``,
``domain``.
"""
