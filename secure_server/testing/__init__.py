"""For tests of your own servicers and authenticators: real certificates, real tokens, no mocks.

- ``guarded_server`` and ``aio_guarded_server`` run a guarded server in this process, over real
  mutual TLS, and hand out channels to it.
- ``Issuer`` signs tokens in memory, good ones and ones with each defect of ``DEFECTS``.
- ``running_provider`` puts one on the network: discovery, keys, introspection, and failures.
- ``as_principal`` lets a unit test call a servicer without any server.
- ``secure_tls.Authority`` makes the certificates.

Ports are free ones, no files remain, and the base install suffices.

>>> import grpc
>>> from secure_server import current_principal
>>> from secure_server.testing import guarded_server
>>> def hello(request, context):
...     return b"Hello, " + current_principal().subject.encode()
>>> def add_servicers(server):  # with generated code: add_GreeterServicer_to_server(..., server)
...     methods = {"Hello": grpc.unary_unary_rpc_method_handler(hello)}
...     server.add_registered_method_handlers("greet.Greeter", methods)
>>> policy = {
...     "name": "greet",
...     "allow_rules": [
...         {
...             "name": "admins",
...             "source": {"roles": ["admin"]},
...             "request": {"paths": ["/greet.Greeter/*"]},
...         }
...     ],
... }
>>> with guarded_server(add_servicers, policy=policy) as server:
...     admin = server.channel("alice", roles=["admin"]).unary_unary("/greet.Greeter/Hello")
...     print(admin(b"", timeout=10).decode())
...     guest = server.channel("bob").unary_unary("/greet.Greeter/Hello")
...     try:
...         guest(b"", timeout=10)
...     except grpc.RpcError as error:
...         print(error.code().name, "-", server.audit[-1].detail)
Hello, alice
PERMISSION_DENIED - No rule allows it.
"""

from secure_server.testing.aio import AioGuardedServer, aio_guarded_server
from secure_server.testing.caller import as_principal
from secure_server.testing.defects import DEFECTS
from secure_server.testing.issuer import Issuer
from secure_server.testing.provider import Provider, running_provider
from secure_server.testing.server import GuardedServer, guarded_server

__all__ = [
    "DEFECTS",
    "AioGuardedServer",
    "GuardedServer",
    "Issuer",
    "Provider",
    "aio_guarded_server",
    "as_principal",
    "guarded_server",
    "running_provider",
]
