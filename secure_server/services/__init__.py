"""The gRPC servicers of users, tokens and health."""
