"""What runs in the peers' own environments: their models in Python. Nothing here imports relens."""
