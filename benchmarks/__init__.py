"""What the guard costs, measured against a server without one. See docs/performance.md."""
