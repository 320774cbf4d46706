"""The demo's network: two sites behind routers, a home behind NAT, an office LAN behind a gateway.

::

                     198.51.100.0/24 "internet"        master .10
        ┌──────────────────┬──┴───────────────────┐
    fra-router .1      nyc-router .2          home-router .3
     │        │         │        │                 │
    dmz      lan       dmz      lan               home 192.168.1.0/24
     │        │         │        │                 │
    relay-   web1      relay-   app1             laptop
    fra1     web2      nyc1     app2
    relay-                      gw1 ── office 192.168.50.0/24 ── printer (no WireGuard)
    fra2

The relays' networks (203.0.113.0/26 and .64/26) are routed for all. The LANs of the sites and the home are
masqueraded, and no machine outside can open a connection into them.
"""

from __future__ import annotations

from ..topology import MachineSpec, Nat, Port, Topology, host

INTERNET = "internet"
FRA_DMZ, FRA_LAN = "203.0.113.0/26", "10.1.1.0/24"
NYC_DMZ, NYC_LAN = "203.0.113.64/26", "10.2.2.0/24"
HOME_LAN = "192.168.1.0/24"
OFFICE_LAN = "192.168.50.0/24"

MINIONS = ("relay-fra1", "relay-fra2", "relay-nyc1", "web1", "web2", "app1", "app2", "gw1", "laptop")
LAN_HOST = "printer"
GATEWAY = "gw1"


def _router(name: str, inside: tuple[Port, ...], outside: str, hidden: str, **more: object) -> MachineSpec:
    ports = (Port(segment=INTERNET, addresses=(outside,)), *inside)
    nat = Nat(outside="eth0", hidden=(hidden,))
    return MachineSpec(name=name, ports=ports, forward=True, nat=nat, **more)  # type: ignore[arg-type]


DEMO = Topology(
    master="master",
    minions=MINIONS,
    machines=(
        MachineSpec(
            name="master",
            ports=(Port(segment=INTERNET, addresses=("198.51.100.10/24",)),),
            routes=((FRA_DMZ, "198.51.100.1"), (NYC_DMZ, "198.51.100.2")),
        ),
        _router(
            "fra-router",
            (
                Port(segment="fra-dmz", addresses=("203.0.113.1/26",)),
                Port(segment="fra-lan", addresses=("10.1.1.1/24",)),
            ),
            "198.51.100.1/24",
            FRA_LAN,
            routes=((NYC_DMZ, "198.51.100.2"),),
        ),
        _router(
            "nyc-router",
            (
                Port(segment="nyc-dmz", addresses=("203.0.113.65/26",)),
                Port(segment="nyc-lan", addresses=("10.2.2.1/24",)),
            ),
            "198.51.100.2/24",
            NYC_LAN,
            routes=((FRA_DMZ, "198.51.100.1"),),
        ),
        _router(
            "home-router",
            (Port(segment="home", addresses=("192.168.1.1/24",)),),
            "198.51.100.3/24",
            HOME_LAN,
            routes=((FRA_DMZ, "198.51.100.1"), (NYC_DMZ, "198.51.100.2")),
        ),
        host("relay-fra1", "fra-dmz", "203.0.113.10/26", "203.0.113.1"),
        host("relay-fra2", "fra-dmz", "203.0.113.11/26", "203.0.113.1"),
        host("web1", "fra-lan", "10.1.1.21/24", "10.1.1.1"),
        host("web2", "fra-lan", "10.1.1.22/24", "10.1.1.1"),
        host("relay-nyc1", "nyc-dmz", "203.0.113.74/26", "203.0.113.65"),
        host("app1", "nyc-lan", "10.2.2.31/24", "10.2.2.1"),
        host("app2", "nyc-lan", "10.2.2.32/24", "10.2.2.1"),
        MachineSpec(
            name="gw1",
            ports=(
                Port(segment="nyc-lan", addresses=("10.2.2.40/24",)),
                Port(segment="office", addresses=("192.168.50.1/24",)),
            ),
            gateway="10.2.2.1",
        ),
        host("printer", "office", "192.168.50.20/24", "192.168.50.1"),
        host("laptop", "home", "192.168.1.50/24", "192.168.1.1"),
    ),
)
