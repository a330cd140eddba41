"""`python -m jimsapi` is the command `jimsapi`."""

from jimsapi.cli import main

if __name__ == "__main__":  # a reloader's child imports this module again
    main()
