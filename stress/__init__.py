"""What the server survives: commands that print figures; tests run each on a small scale."""
