"""From a model file in float32 to one whose heavy layers compute in eight bits."""
