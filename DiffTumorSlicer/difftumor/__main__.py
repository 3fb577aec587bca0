"""The program `difftumor`, also `python -m difftumor`."""

import signal
import sys


class _Interrupted(KeyboardInterrupt):
    """A Ctrl-C or a polite end from outside.

    Not KeyboardInterrupt itself: where one leaves an `exec` of a string (dataclasses have one), CPython ends the
    process by SIGINT at its exit, whoever has caught it since.
    """


def main() -> int:
    """Run the command line; returns the exit code.

    Importing PyTorch takes seconds. A Ctrl-C then, and a polite end from outside at any time, stop the
    program as they stop a computation: exit code 1, nothing left behind.
    """
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as whoever started us wishes
                signal.signal(number, _interrupt)
        from difftumor import cli

        return cli.main()
    except KeyboardInterrupt:
        print("difftumor: cancelled", file=sys.stderr)  # noqa: T201
        return 1


def _interrupt(_number: int, _frame: object) -> None:
    raise _Interrupted


if __name__ == "__main__":
    sys.exit(main())
