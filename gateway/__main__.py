"""`python -m gateway` is the same as the command `dicom-gateway`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
