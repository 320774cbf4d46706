# The smallest mesh: every minion in one network, each of which can reach the others directly.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    topology: full
    nodes:
      '*':
