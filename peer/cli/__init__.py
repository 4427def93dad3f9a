"""The command line: the outer shell, which builds the real world around the node and the client. Imported by nobody."""
