"""Which version of secure-grpc this is."""

from __future__ import annotations


def installed_version() -> str:
    """Return the version that is installed; ``unknown`` where it runs from a bare clone."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - 20 ms

    try:
        return version("secure-grpc")
    except PackageNotFoundError:
        return "unknown"
