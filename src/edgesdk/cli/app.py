"""The table of commands, and how every kind of failure becomes an `error:` line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated

import typer

import edgesdk
from edgesdk.cli import (
    build,
    bundle,
    deploy,
    devices,
    evaluate,
    export,
    generate,
    inspect,
    profile,
    report,
    serve,
    sign,
)
from edgesdk.cli.console import complain, say
from edgesdk.cli.options import examples, with_values
from edgesdk.errors import EdgeError, UsageError

__all__ = ["app", "run"]

# Typer does not export the base class of its usage errors; every version has it among the bases of BadParameter.
CommandLineError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="edgesdk",
    help="Compile a language model once into one nested file, and run any size of it from that file.",
    epilog=examples("edgesdk build smollm2 -o out", "edgesdk chat out/model.edge --budget 80MB"),
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("build", epilog=build.EXAMPLES)(build.build)
app.command("bundle", epilog=bundle.EXAMPLES)(bundle.bundle)
app.command("run", epilog=generate.RUN_EXAMPLES)(generate.run)
app.command("chat", epilog=generate.CHAT_EXAMPLES)(generate.chat)
app.command("inspect", epilog=inspect.INSPECT_EXAMPLES)(inspect.inspect)
app.command("verify", epilog=inspect.VERIFY_EXAMPLES)(inspect.verify)
app.command("sign", epilog=sign.EXAMPLES)(sign.sign)
app.command("eval", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.command("devices", epilog=devices.EXAMPLES)(devices.devices)
app.command("deploy", epilog=deploy.EXAMPLES)(deploy.deploy)
app.command("profile", epilog=profile.EXAMPLES)(profile.profile)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"edgesdk {edgesdk.__version__}\n")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python tracebacks of errors.")] = False,
) -> None:
    """Compile a language model once into one nested file, and run any size of it from that file."""


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status. `--debug`, anywhere, lets exceptions through."""
    arguments = list(arguments)
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:separator]:
        arguments.remove("--debug")
        return int(_invoke(arguments) or 0)
    sys.excepthook = _report_defect
    try:
        return int(_invoke(arguments) or 0)
    except CommandLineError as error:
        complain(error.format_message(), _usage_hint(error))  # type: ignore[attr-defined]
        return 2
    except EdgeError as error:
        complain(error.message, error.hint)
        return 2 if isinstance(error, UsageError) else 1
    except ModuleNotFoundError as missing:
        if (missing.name or "edgesdk").startswith("edgesdk"):
            raise
        complain(f"this command needs `{missing.name}`, which is not installed", "pip install 'edgesdk[cloud]'")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        say("stopped")
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; there is nobody to tell
        return 1


def _invoke(arguments: list[str]) -> int | None:
    command = typer.main.get_command(app)  # calling `app` itself would install Typer's own excepthook
    arguments = with_values(arguments) or ["--help"]
    result = command.main(args=arguments, prog_name="edgesdk", standalone_mode=False)
    return result if isinstance(result, int) else None


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else "see `edgesdk --help`"


def _report_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Stands in for Python's traceback: an exception that is not an EdgeError is a defect of this program."""
    where = ""
    while trace is not None:
        where = f" ({trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno})"
        trace = trace.tb_next
    complain(
        f"this is a defect in edgesdk: {kind.__name__}: {error}{where}", "`edgesdk --debug ...` shows the traceback"
    )
