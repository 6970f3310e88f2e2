"""Label maps, alignment and pose of photographs."""
