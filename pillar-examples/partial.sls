# Two sites. Two nodes of one site are linked directly if one of them can be called. The web servers are all behind NAT, so
# that their relays forward. Relays also forward packets from site to site.
wgmesh:
  wg0:
    network: [10.100.0.0/16, fd00:64::/64]
    reserved: [10.100.0.0/28, 10.100.255.200-10.100.255.254]  # no node gets these but by its address
    listen_port: 51820
    topology: partial               # full | partial | hub; partial is the default
    sites:
      fra: {relays: [relay-fra1, relay-fra2]}
      nyc: {relays: [relay-nyc1, relay-fra1]}
    nodes:                          # minion ids or globs; the first match counts; a node without a match is not a member
      relay-fra1: {role: relay, site: fra, endpoint: 203.0.113.10, address: 10.100.0.1}
      relay-fra2: {role: relay, site: fra, endpoint: 203.0.113.11}
      relay-nyc1: {role: relay, site: nyc, endpoint: relay.nyc.example.com}
      db1: {site: nyc, routes: [192.168.7.0/24]}
      'web*': {site: fra, nat: true}
    links: [[db1, web1]]            # a further direct link, across sites
