"""`python -m csk_sdk` is `csk-sdk`."""

from csk_sdk.cli import main

if __name__ == "__main__":
    main()
