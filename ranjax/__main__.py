"""The console command, also as ``python -m ranjax``."""

from ranjax.cli.console import main

if __name__ == "__main__":
    main()
