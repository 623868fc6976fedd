"""``python -m secure_server``."""

from secure_server.cli import main

if __name__ == "__main__":
    main()
