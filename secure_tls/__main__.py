"""``python -m secure_tls``: the certificate generator."""

from secure_tls.cli import main

if __name__ == "__main__":
    main()
