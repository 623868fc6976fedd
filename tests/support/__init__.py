"""What the tests share. Everything in here is real: TLS, sockets, the database, the server."""
