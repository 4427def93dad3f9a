"""Who belongs to the cluster, and which layout is in force."""
