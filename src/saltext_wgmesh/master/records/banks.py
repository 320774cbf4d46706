"""The banks of Salt's cache that the ledger is kept in."""

ROOT = "wgmesh"
"""The folder of all banks, below Salt's cachedir where the cache is one of files."""
CURRENT = "wgmesh/mesh"
HEADS = "wgmesh/head"
HEAD_COPIES = "wgmesh/head-copy"
GENERATIONS = "wgmesh/generation"
NODES = "wgmesh/node"
ACKS = "wgmesh/acknowledged"
HEALTH = "wgmesh/health"
GUARD = "wgmesh/guard"
PINS = "wgmesh/pin"
RUNS = "wgmesh/runs"
REPLACEABLE = (CURRENT, NODES, ACKS, RUNS)
"""Records that a run can write again from others: one of an unknown schema is damage, as the heads are of this one."""
ALL = (CURRENT, HEADS, HEAD_COPIES, GENERATIONS, NODES, ACKS, HEALTH, GUARD, PINS, RUNS)
