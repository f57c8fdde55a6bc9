"""`flowers`: all verbs, one per file. Errors become a message and an exit code."""

import errno
import os
import signal
import sys

from cyclopts import App, CycloptsError, UnusedCliTokensError
from pydantic import ValidationError

from service import __version__
from service.cli.help import VERBS, HelpFormatter, describe_usage
from service.cli.terminal import complain, describe_error, open_console, open_standard_streams
from service.errors import FlowersError, UsageError
from service.installation import install_command
from service.setting_checks import check_environment, describe_invalid_settings

_OF_TRAINING = ("keras", "tensorflow", "onnx", "tf2onnx", "matplotlib")
# A full disk is no bug. Every other OSError in `main` is one, and keeps its traceback.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = App(
    name="flowers",
    version_flags=[],  # `flowers models show --version 5` would print the version of this program
    help="Train a flower classifier on a folder of photographs, and serve it over HTTP.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # cyclopts would end the process in silence
    help_format="plaintext",
    help_formatter=HelpFormatter(),
)
for place, verb in enumerate(VERBS):
    # A string is imported when its verb is asked for: `flowers models list` never pays for TensorFlow or FastAPI.
    texts = {} if verb.name == "models" else {"usage": describe_usage(verb.name)}  # that app describes itself
    app.command(f"service.cli.{verb.name}:{verb.name}", name=verb.name, sort_key=place, **texts)
app.register_install_completion_command(help="Install the completion of your shell.")


@app.command(name="--version")
def print_version() -> None:
    """Print the version of this program."""
    print(__version__)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. The exit code is 0 for done, 1 for failed, 2 for a wrong request."""
    if arguments is None:
        open_standard_streams()
        if sys.argv[1:2] == ["serve"]:
            _end_by_signals()
    try:
        check_environment(os.environ)
        exit_code = app(arguments, console=open_console(), exit_on_error=False, print_error=False)
        sys.stdout.flush()  # an empty write would wait, too, for a terminal that is stopped
    except UsageError as error:
        return _fail(str(error), exit_code=2)
    except CycloptsError as error:
        return _fail(_describe(error), exit_code=2)
    except ValidationError as error:
        return _fail(describe_invalid_settings(error), exit_code=2)
    except FlowersError as error:
        return _fail(describe_error(error), exit_code=1)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _OF_TRAINING:
            raise
        what = f"This command needs {error.name}, which is not installed."
        return _fail(f"{what} Run `{install_command()}`.", exit_code=1)
    except BrokenPipeError:  # the reader has enough, as `head` does
        _drop_output()
        return 1
    except MemoryError:
        return _fail("There is not enough memory. Close other programs, or raise the limit of this one.", exit_code=1)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _drop_output()
        what = error.filename or "The result"
        return _fail(f"{what} cannot be written ({error.strerror}). Make room, or write it elsewhere.", exit_code=1)
    except KeyboardInterrupt:
        return _fail("interrupted", exit_code=130)
    return exit_code if isinstance(exit_code, int) else 0


def _end_by_signals() -> None:
    """End at once by SIGTERM and SIGHUP until the service listens. Process 1 of a container would ignore them."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, lambda *_: os._exit(0))


def _describe(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return describe_invalid_settings(cause)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        verb = " ".join(("flowers", *(error.command_chain or ())))
        return f"{error.unused_tokens[0]!r} is one word too many. See `{verb} --help`."
    return str(error)


def _drop_output() -> None:
    """Drop the output that cannot be written. Python flushes once more at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, *, exit_code: int) -> int:
    complain(message)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
