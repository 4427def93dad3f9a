"""What a node keeps: its identity, the layout chain, rows and chunks, on the seams `Disk` and `KV`."""
