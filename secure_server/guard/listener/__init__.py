"""One port, served by one gRPC server after the other."""
