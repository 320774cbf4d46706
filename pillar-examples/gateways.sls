# Subnets behind nodes. If two nodes name one subnet, the first one that is in the mesh and not down is its gateway.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    sites:
      office: {direct: false}       # its nodes cannot reach each other directly: the relay forwards
    nodes:
      relay1: {role: relay, endpoint: 203.0.113.10, routes: [172.16.0.0/24]}
      gw-a: {site: office, routes: [192.168.7.0/24, 192.168.8.0/24]}
      gw-b: {site: office, routes: [192.168.7.0/24]}
      'app*':
