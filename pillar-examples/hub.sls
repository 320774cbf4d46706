# Hub and spokes: everything goes by two relays, but for the pair under `links`.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    topology: hub
    keepalive: 15                   # seconds; for NAT boxes that forget early
    mtu: 1380                       # bytes; where the underlay takes less than 1500
    nodes:
      hub1: {role: relay, endpoint: 203.0.113.10, address: 10.100.0.1}
      hub2: {role: relay, endpoint: 203.0.113.11, address: 10.100.0.2}
      backup: {endpoint: 203.0.113.40}
      'branch-*': {nat: true}
    links: [[backup, branch-7]]
