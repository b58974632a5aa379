"""The entry point: the script `trackly-connector`, and `python -m connector` where that is not on the path."""

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while its modules are being loaded."""
    if sys.platform != "linux":
        sys.exit("error: trackly-connector runs on Linux; on other systems run it in a container or a virtual machine")
    if os.getpid() == 1:
        # Of a container: the kernel keeps SIGTERM from it while it has no handler, and loading takes a second or more.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from connector.cli.main import main as command_line  # noqa: PLC0415

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)  # `ExitCode.INTERRUPTED`, whose module may not be loaded yet


if __name__ == "__main__":
    main()
