"""`python -m npusim` and the `npusim` command."""

from npusim.cli import main

if __name__ == "__main__":
    main()
