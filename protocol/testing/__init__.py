"""For tests of this protocol and of other implementations: strategies for every value, two connected machines, a model of a node.

`protocol/testing/README.md` says how a node of one's own is tried out. Needs `hypothesis` (extra `test`).
Nothing outside tests imports this.
"""
