"""Fakes that need no server, and the client's side of calls to the small one."""

import base64
import json
import threading

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client import AccessToken, connect

NOW = 1_800_000_000


def access_token(number, *, lifetime=900, issued=NOW, **claims):
    """An unsigned fake: the client reads `iat` and `exp` and verifies nothing."""

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
    """A new token each time the last one was refused."""

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


def open_channel(world, running, host="localhost", **more):
    """A channel with a new certificate. "localhost" may be two addresses: a connection each."""
    connection = world.connection(running.port)
    return connect(
        f"{host}:{running.port}",
        ca=connection.ca,
        certificate=connection.certificate,
        private_key=connection.private_key,
        **more,
    )


def subject(channel):
    """The certificate that the server sees."""
    return TokenServiceStub(channel).WhoAmI(pb.WhoAmIRequest()).certificate.subject


class Requests:
    """A request iterator that is fed from outside."""

    def __init__(self):
        self._items = []
        self._changed = threading.Condition()

    def send(self, text):
        with self._changed:
            self._items.append(pb.IntrospectRequest(correlation_id=text))
            self._changed.notify()

    def end(self):
        with self._changed:
            self._items.append(None)
            self._changed.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self._changed:
            while not self._items:
                self._changed.wait(30)
            item = self._items.pop(0)
        if item is None:
            raise StopIteration
        return item
