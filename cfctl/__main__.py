"""`cfctl` and `python -m cfctl`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit the process."""
    try:
        # Inside: Ctrl-C while the command line is being imported ends without a traceback too.
        from cfctl.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
