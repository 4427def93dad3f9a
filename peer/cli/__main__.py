"""`python -m peer.cli`, the same as the command `shoal`."""

from peer.cli.start import main

main()
