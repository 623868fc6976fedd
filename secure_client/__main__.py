"""``python -m secure_client`` is ``secure-client``."""

from secure_client.cli import main

if __name__ == "__main__":
    main()
