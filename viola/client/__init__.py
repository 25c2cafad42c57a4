"""Python for a service of Viola: `viola.Client` and `viola.AsyncClient`."""
