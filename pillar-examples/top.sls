# The policy is read in the pillar of the master's own id, which is its host name and `_master`.
# With this target the policy stays on the master; with '*' each minion could read it too.
base:
  '*_master':
    - wgmesh
