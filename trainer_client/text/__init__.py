"""From narrations to token ids; knows no torch."""
