"""Learning what healthy looks like, from finished rollouts and from stable's own replicas."""
