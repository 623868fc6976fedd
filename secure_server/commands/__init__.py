"""The command line's groups of commands, one file each, and what only they need."""
