"""`python -m lightpaff`, which launchers of several processes can start."""

from lightpaff.cli import main

main()
