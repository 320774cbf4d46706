# The master reads the policy from the pillar of its own id: its host name followed by `_master`.
# With this target the policy stays on the master. With '*' each minion could read it too.
base:
  '*_master':
    - wgmesh
