"""Run the command line with `python -m adapterscan`."""

from adapterscan.cli import main

if __name__ == "__main__":
    main()
