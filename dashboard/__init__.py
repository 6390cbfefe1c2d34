"""Looking at rollouts. Empty in this release: ``sentra demo`` and ``sentra rollout watch`` show them live."""
