# All pairs are linked directly where that is possible. The relay carries the packets of all other pairs.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    topology: full
    nodes:
      gate: {role: relay, endpoint: 'gate.example.com:51820'}
      app1: {endpoint: 198.51.100.21}
      app2: {endpoint: '[2001:db8:5::22]:51820'}
      'laptop-*': {nat: true}
