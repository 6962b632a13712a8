"""Decode servers on further machines: how many are wanted, and where. Their clips never pass through here."""
