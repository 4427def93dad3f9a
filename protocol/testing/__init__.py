"""For tests of this protocol and of other implementations: strategies for every value, and two connected machines.

Needs `hypothesis` (extra `test`). Nothing outside tests imports this.
"""
