"""The demo's world: a service in two versions, its users, and a wire that can be cut.

Each part is a process of its own (``python -m sentra.embedded.demo.service``, ``….load``), so that one can be
killed without the others noticing more than its users would:

* ``service.py`` answers requests; ``behaviour.py`` says how well, and takes faults while it runs.
* ``load.py`` sends requests at a constant rate (``users.py``); ``request_log.py`` is what it wrote down.
* ``control.py`` starts both as children and injects faults; ``relay.py`` is the wire.
"""
