"""The identity service as one program: composed, measured, started and stopped."""
