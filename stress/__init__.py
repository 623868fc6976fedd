"""What a server survives: commands that print numbers."""
