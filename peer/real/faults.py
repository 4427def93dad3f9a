"""Production: rare paths stay rare."""


class NoFaults:
    """`peer.seams.Faults`."""

    def sometimes(self, label: str) -> bool:
        """Return False."""
        return False
