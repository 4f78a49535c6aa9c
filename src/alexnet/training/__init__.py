"""Training a network: the update rule, the loop, the checkpoints, and a run's folder."""
