"""From batches to a trained, measured model."""
