# WireGuard's tools, and its userspace implementation where the kernel has none. They come before the key.
{%- set kernel = salt['cmd.retcode']('modprobe -q wireguard', ignore_retcode=True) == 0 %}
wgmesh-tools:
  pkg.installed:
    - pkgs:
      - wireguard-tools
{%- if not kernel %}
      - wireguard-go
{%- endif %}
    - install_recommends: False
    - order: 1
