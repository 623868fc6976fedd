"""Look-alikes that need no server."""

import base64
import json

from secure_client import AccessToken

NOW = 1_800_000_000


def access_token(number, *, lifetime=900, issued=NOW, **claims):
    """An unsigned look-alike: the client reads `iat` and `exp` and verifies nothing."""

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    payload = {"iat": issued, "exp": issued + lifetime, "jti": f"secret-{number}", **claims}
    return f"{part({'alg': 'ES256'})}.{part(payload)}.c2ln"


class Fixed:
    """Always the same token."""

    def __init__(self, value="token-a"):
        self.value = value

    def token(self, *, refused=None):
        return AccessToken(self.value)


class Renewing:
    """Another token whenever the last one was refused."""

    def __init__(self):
        self.number = 0
        self.asked = []

    def token(self, *, refused=None):
        self.asked.append(refused)
        if refused is not None and refused.value == f"token-{self.number}":
            self.number += 1
        return AccessToken(f"token-{self.number}")


class Broken:
    def token(self, *, refused=None):
        raise RuntimeError("password=hunter2")
