"""Decision quality: simulated and real rollouts, the peers' rules, and the leaderboard that compares them."""
