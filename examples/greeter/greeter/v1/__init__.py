"""Generated from .proto files; never edited."""
