"""What a run says of itself: log, metrics, summary, pictures."""
