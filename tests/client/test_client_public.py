"""The public names, and what an error may hold."""

import secure_client
import secure_client.cli
from secure_client import CallError


def test_the_public_names():
    assert sorted(secure_client.__all__) == [
        "AccessToken",
        "CallError",
        "ClientError",
        "ConfigurationError",
        "ConnectionSettings",
        "FileTokenSource",
        "NotLoggedInError",
        "ProfileError",
        "SessionEndedError",
        "SessionTokenSource",
        "TokenError",
        "TokenRefusedError",
        "TokenSource",
        "TokenUnavailableError",
        "WorkloadTokenSource",
        "aio",
        "connect",
        "find_connection",
        "watch_users",
    ]
    assert all(hasattr(secure_client, name) for name in secure_client.__all__)
    assert secure_client.cli.__all__ == ["app", "main"]


def test_every_error_has_one_root():
    for name in secure_client.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(secure_client, name), secure_client.ClientError)


def test_damaged_details_are_no_reason():
    import grpc

    class Failed(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.INTERNAL

        def details(self):
            return None

        def trailing_metadata(self):
            return (("grpc-status-details-bin", b"\xff\xff"),)

    error = CallError.of(Failed())
    assert (error.code, error.details, error.reason) == (grpc.StatusCode.INTERNAL, "", "")
