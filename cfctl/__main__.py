"""`python -m cfctl`."""

from cfctl.cli.app import main

if __name__ == "__main__":
    main()
