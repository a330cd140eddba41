"""`python -m jims_api.main` is the command."""

from jims_api.main import main

if __name__ == "__main__":  # a reloader's child imports this module again
    main()
