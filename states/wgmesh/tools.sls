# WireGuard's tools, and its userspace implementation if the kernel has none. They are installed before the key is made.
# Relays use nftables to leave the packets that they forward untracked.
{%- set kernel = salt['cmd.retcode']('modprobe -q wireguard', ignore_retcode=True) == 0 %}
wgmesh-tools:
  pkg.installed:
    - pkgs:
      - wireguard-tools
      - nftables
{%- if not kernel %}
      - wireguard-go
{%- endif %}
    - install_recommends: False
    - order: 1
