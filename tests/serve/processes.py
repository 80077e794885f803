"""A server in a process of its own, for tests that send it signals."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

SERVER = """
import sys
from serve.server import bind, serve
from serve.services import Services
from serve.settings import Settings
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from tests.conftest import TEXTS, tiny_config
from foundation import model as models, tokenizer
from foundation.engine.torch import TorchEngine
from foundation.tokenizer import TextEncoder
encoder = TextEncoder(tokenizer.train(list(TEXTS) * 50, 512))
engine = TorchEngine(models.build(tiny_config(vocab_size=len(encoder.tokenizer))), encoder, "tiny@random")
with bind("127.0.0.1", 0) as bound, Ledger.open(sys.argv[1]) as ledger:
    services = Services.open(ledger, engine, Registry.shipped(), settings=Settings(drain_s=float(sys.argv[2])))
    print(bound.getsockname()[1], flush=True)
    serve(services, bound)
"""


class Server(NamedTuple):
    """A server that answers."""

    port: int
    process: subprocess.Popen[str]


@contextmanager
def running(url: str, drain_s: float = 0.3) -> Iterator[Server]:
    """A server of the tiny model over a ledger, from when it answers until it is killed."""
    command = [sys.executable, "-c", SERVER, url, str(drain_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            end = time.monotonic() + 30
            while not _answers(port):
                assert time.monotonic() < end
                time.sleep(0.02)
            yield Server(port, process)
        finally:
            process.kill()


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
