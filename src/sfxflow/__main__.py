"""`python -m sfxflow`, where no program `sfxflow` is installed."""

from sfxflow.cli import main

if __name__ == "__main__":
    main()
