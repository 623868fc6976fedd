"""``python -m benchmarks.fuzz_tokens``: mutants of tokens, key sets and answers, by coverage."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

# Atheris instruments only later imports: nothing of ours is imported up here.
_SEEN = ["secure_server.auth", "jwt"]
_MOST_BYTES = 512
_MOST_SHOWN = 10
_OPTIONS = (
    f"-max_len={_MOST_BYTES}",
    "-timeout=10",  # seconds for one input
    "-rss_limit_mb=0",
    "-verbosity=0",
    f"-artifact_prefix={tempfile.gettempdir()}/fuzz-tokens-",
)


class _Provided:
    """Choices that atheris makes, derived from the bytes of one input."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def below(self, count: int) -> int:
        return int(self._provider.ConsumeIntInRange(0, count - 1))

    def text(self, most: int) -> str:
        return str(self._provider.ConsumeUnicode(self.below(most + 1)))

    def data(self, most: int) -> bytes:
        return bytes(self._provider.ConsumeBytes(self.below(most + 1)))


class Fuzzing:
    """One run of the fuzzer. It counts failures and continues after them."""

    def __init__(self, atheris: Any, seconds: float) -> None:
        self._atheris = atheris
        self._seconds = seconds
        with atheris.instrument_imports(include=_SEEN):
            verdicts = importlib.import_module("benchmarks.verdicts")
        self._mistake: type[Exception] = verdicts.AcceptedMutantError
        self._verdicts = verdicts.Verdicts()
        self._outcomes: Counter[str] = Counter()
        self._failures: dict[str, str] = {}
        self._crashes = 0
        self._accepted = 0
        self._runs = 0
        self._began = 0.0

    def run(self) -> NoReturn:
        """Fuzz for ``seconds``, print the results, and end the process."""
        self._atheris.Setup([sys.argv[0], *_OPTIONS], self._one)
        self._began = time.monotonic()
        self._atheris.Fuzz()
        raise AssertionError("the fuzzer ends the process")

    def _one(self, data: bytes) -> None:
        choices = _Provided(self._atheris.FuzzedDataProvider(data))
        verdicts, mutants = self._verdicts, self._verdicts.mutants
        name, target = (
            ("credentials", lambda: verdicts.authorization(mutants.authorization(choices))),
            ("text", lambda: verdicts.text(choices.text(_MOST_BYTES))),
            ("key_set", lambda: verdicts.key_set(mutants.key_set(choices, verdicts.jwks))),
            ("answer", lambda: verdicts.answer(mutants.answer(choices, verdicts.members))),
        )[choices.below(4)]
        self._runs += 1
        self._count(name, target, data)
        if time.monotonic() - self._began > self._seconds:
            self._end()

    def _count(self, name: str, target: Callable[[], str], data: bytes) -> None:
        try:
            self._outcomes[f"{name}_{target()}"] += 1
        except self._mistake as error:
            self._accepted += 1
            self._failures.setdefault(f"{name} accepted", f"{error}\n{data.hex()}")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of Rust's code is no Exception
            self._crashes += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{name} {type(error).__name__} {place.filename}:{place.lineno}"
            self._failures.setdefault(where, f"{traceback.format_exc()}\n{data.hex()}")

    def _end(self) -> NoReturn:
        for where, text in list(self._failures.items())[:_MOST_SHOWN]:
            print(f"{where}\n{text}", file=sys.stderr)
        self._verdicts.close()
        summary = {
            "runs": self._runs,
            "seconds": round(time.monotonic() - self._began, 1),
            "crashes": self._crashes,
            "accepted_mutants": self._accepted,
            "outcomes": dict(sorted(self._outcomes.items())),
            "atheris": version("atheris"),
        }
        print(json.dumps(summary), flush=True)
        os._exit(1 if self._crashes or self._accepted else 0)  # libFuzzer has no other way out


def main(
    *, seconds: Annotated[float, typer.Option(min=1, help="How long to look.")] = 60.0
) -> None:
    """Make mutants of good tokens, key sets and answers of introspection, guided by code coverage,
    and check that each is refused with the intended error, or is good.

    Exits with 1 if anything else was raised, or a mutant accepted. The last line is JSON.
    """
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print(
            "This needs atheris, which has wheels for Python 3.11 to 3.13 on Linux: "
            "pip install atheris==3.0.0",
            file=sys.stderr,
        )
        raise typer.Exit(2) from None
    Fuzzing(atheris, seconds).run()


if __name__ == "__main__":
    typer.run(main)
