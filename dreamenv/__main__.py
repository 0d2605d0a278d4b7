"""Lets `python -m dreamenv` stand for `dreamenv`."""

from dreamenv.cli.main import main

if __name__ == "__main__":
    main()
