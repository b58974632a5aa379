"""The entry point: the script `trackly-connector`, and `python -m connector` where that is not on the path."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while its modules are being loaded."""
    if sys.platform != "linux":
        sys.exit("error: trackly-connector runs on Linux; on other systems run it in a container or a virtual machine")
    try:
        from connector.cli.main import main as command_line  # noqa: PLC0415

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)  # `ExitCode.INTERRUPTED`, whose module may not be loaded yet


if __name__ == "__main__":
    main()
