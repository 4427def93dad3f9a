"""Files on top of rows and chunks: the write path, the read path, and what replicas and holders answer."""
