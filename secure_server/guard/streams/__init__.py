"""The open streams: who serves them, and who ends them."""
