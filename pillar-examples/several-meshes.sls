# Two meshes on the same nodes: one for the services, one for their administration.
# Each mesh has its own networks and UDP ports. A mesh with two or more relays uses one more port for each relay that it ever
# had, so keep the listen ports far apart.
wgmesh:
  wg0:
    network: 10.100.0.0/16
    listen_port: 51820              # 51820; on the relays also 51821 and 51822
    sites:
      fra: {network: 10.100.16.0/20}
      nyc: {network: 10.100.32.0/20}
    nodes:
      relay-fra: {role: relay, site: fra, endpoint: 203.0.113.10}
      relay-nyc: {role: relay, site: nyc, endpoint: 198.51.100.10}
      '*.fra.example.com': {site: fra}
      '*.nyc.example.com': {site: nyc}
  adm:
    network: fd00:ad::/64
    listen_port: 51900
    topology: hub
    nodes:
      relay-fra: {role: relay, endpoint: '203.0.113.10:51900'}
      '*':
