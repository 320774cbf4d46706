# Two sites. Nodes of one site speak directly where one of them can be called: the web servers, all behind NAT, go by their
# relays; so do packets from site to site.
wgmesh:
  wg0:
    network: [10.100.0.0/16, fd00:64::/64]
    listen_port: 51820
    topology: partial               # full | partial | hub; partial is the default
    sites:
      fra: {relays: [relay-fra1, relay-fra2]}
      nyc: {relays: [relay-nyc1, relay-fra1]}
    nodes:                          # minion ids or globs; the first that matches counts; no match, no member
      relay-fra1: {role: relay, site: fra, endpoint: 203.0.113.10, address: 10.100.0.1}
      relay-fra2: {role: relay, site: fra, endpoint: 203.0.113.11}
      relay-nyc1: {role: relay, site: nyc, endpoint: relay.nyc.example.com}
      db1: {site: nyc, routes: [192.168.7.0/24]}
      'web*': {site: fra, nat: true}
    links: [[db1, web1]]            # a direct link beside those within the sites
