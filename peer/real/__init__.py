"""The machine itself: the only part of a node that touches the operating system."""
