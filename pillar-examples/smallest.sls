# The smallest mesh: all minions are in one network, and can reach each other directly.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    topology: full
    nodes:
      '*':
