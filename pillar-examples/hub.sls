# Hub and spokes: two relays forward all traffic, except that of the pair in `links`.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    topology: hub
    keepalive: 15                   # seconds; for NAT boxes with a short UDP timeout
    mtu: 1380                       # bytes; for an underlay with an MTU below 1500
    nodes:
      hub1: {role: relay, endpoint: 203.0.113.10, address: 10.100.0.1}
      hub2: {role: relay, endpoint: 203.0.113.11, address: 10.100.0.2}
      backup: {endpoint: 203.0.113.40}
      'branch-*': {nat: true}
    links: [[backup, branch-7]]
