"""The program `difftumor`, also `python -m difftumor`."""

import signal
import sys


def main() -> int:
    """Run the command line; returns the exit code.

    Importing PyTorch takes seconds. A Ctrl-C then, and a polite end from outside at any time, stop the
    program as they stop a computation: exit code 1, nothing left behind.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from difftumor import cli

        return cli.main()
    except KeyboardInterrupt:
        print("difftumor: cancelled", file=sys.stderr)  # noqa: T201
        return 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
