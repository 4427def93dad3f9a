"""`python -m peer.cli`, the same as the command `shoal`."""

from peer.cli.main import main

main()
