"""What a video file is, packet by packet: container, codec headers, dependencies, times, orientation; no pictures."""
