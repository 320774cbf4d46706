"""The banks of Salt's cache that the ledger is kept in."""

ROOT = "wgmesh"
"""The folder of all banks, below Salt's cachedir where the cache is one of files."""
CURRENT = "wgmesh/mesh"
HEADS = "wgmesh/head"
GENERATIONS = "wgmesh/generation"
NODES = "wgmesh/node"
ACKS = "wgmesh/acknowledged"
HEALTH = "wgmesh/health"
GUARD = "wgmesh/guard"
PINS = "wgmesh/pin"
RUNS = "wgmesh/runs"
ALL = (CURRENT, HEADS, GENERATIONS, NODES, ACKS, HEALTH, GUARD, PINS, RUNS)
