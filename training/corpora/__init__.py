"""Collections of sound that anyone can fetch: what the default encoder learns from."""
