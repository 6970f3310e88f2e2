"""Label maps read off photographs."""
