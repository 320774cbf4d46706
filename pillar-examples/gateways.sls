# Subnets behind nodes. Two gateways for one subnet: the first that is in the mesh serves it, the other stands by.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    sites:
      office: {direct: false}       # its nodes don't reach each other: they go by the relay
    nodes:
      relay1: {role: relay, endpoint: 203.0.113.10, routes: [172.16.0.0/24]}
      gw-a: {site: office, routes: [192.168.7.0/24, 192.168.8.0/24]}
      gw-b: {site: office, routes: [192.168.7.0/24]}
      'app*':
