"""What the server survives: commands that print figures, each run small by a test."""
