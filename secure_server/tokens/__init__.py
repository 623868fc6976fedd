"""Access tokens, sessions and revocations of this server's own issuer."""
