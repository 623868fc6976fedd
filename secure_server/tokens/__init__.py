"""What we vouch for: access tokens, sessions, revocations."""
