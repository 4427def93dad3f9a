"""The client that people program with. An outer shell: it builds its world from `peer.real`, and only `peer` and `peer.cli` import it.

Use it as ``from peer import Client`` (asynchronous) or ``peer.connect()`` (blocking).
"""
