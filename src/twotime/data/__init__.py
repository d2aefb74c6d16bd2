"""What was measured: files read, selected and simulated, as values."""
