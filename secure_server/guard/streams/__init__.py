"""Open streams: the threads that serve them, and the watch that ends them."""
