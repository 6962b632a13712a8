"""From a plan to batches in order, with a state to resume from."""
