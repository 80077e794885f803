"""`prismrank serve`: the HTTP server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve.commands.parts import (
    SHIPPED_MODEL,
    AdapterFolder,
    LedgerUrl,
    ModelFolder,
    SurfaceFolder,
    model_folder,
    open_calibrations,
    open_engine,
    open_ledger,
    open_registry,
    steps,
)


def serve(
    ledger: LedgerUrl,
    model: ModelFolder = SHIPPED_MODEL,
    surfaces: SurfaceFolder = None,
    adapters: AdapterFolder = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of model folders; `PUT /v1/model` changes to one of them."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes any that is free.")] = 8000,
    cache_mb: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="Memory for trunks and stems that are read again; 0: none.")
    ] = 512,
    precision: Annotated[
        str, typer.Option(help="fp32, exact; or bf16, faster where the hardware has it (docs/precision.md).")
    ] = "fp32",
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only keys of this file come in; `prismrank keys` makes them.")
    ] = None,
    traces: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send spans to this OpenTelemetry collector (OTLP over HTTP, …/v1/traces)."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Limits, as YAML (docs/serving.md lists them).")
    ] = None,
) -> None:
    """Serve rankings over HTTP, until Ctrl-C. The API's pages are at /docs."""
    from foundation.engine.heap import keep_large_apart, share_arenas
    from prompts.errors import ConfigError
    from serve import server
    from serve.doors import check_host
    from serve.keys import Keys
    from serve.models import Opened, Shelf
    from serve.services import Services
    from serve.settings import Settings
    from serve.traces import Traces, exporting

    share_arenas()
    keep_large_apart()
    known = Keys.load(keys) if keys else Keys()
    check_host(host, known)
    limits = Settings.load(settings) if settings else Settings()
    provider = exporting(traces) if traces else None
    if models and not models.is_dir():
        raise ConfigError(f"{models}: no such folder; give one that holds a folder for each model")

    def read(folder: Path) -> Opened:
        engine = open_engine(str(folder), apart=True, cache_bytes=cache_mb << 20, precision=precision)
        return Opened(engine, open_calibrations(str(folder)))

    with server.bind(host, port) as bound, open_ledger(ledger) as opened:
        with steps("reading the surfaces") as step:
            registry = open_registry(surfaces)
            step("loading the model")
            engine, calibrations = read(model_folder(model))
            services = Services.open(opened, engine, registry, step, calibrations, adapters, limits)
        services.traces = Traces(provider)
        if opened.note:
            typer.echo(f"the ledger: {opened.note}", err=True)
        typer.echo(f"prismrank serves at {server.address(bound)}; Ctrl-C ends it", err=True)
        server.serve(services, bound, surfaces, known, Shelf(read, models))
