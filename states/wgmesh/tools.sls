# WireGuard's tools, and its userspace implementation where the kernel has none.
{%- set kernel = salt['file.directory_exists']('/sys/module/wireguard') or salt['cmd.retcode']('modprobe -q -n wireguard', ignore_retcode=True) == 0 if not salt['cmd.which']('wireguard-go') else True %}
{%- set missing = [] %}
{%- if not salt['cmd.which']('wg') %}{% do missing.append('wireguard-tools') %}{% endif %}
{%- if not kernel %}{% do missing.append('wireguard-go') %}{% endif %}

{%- if missing %}
wgmesh-tools:
  pkg.installed:
    - pkgs: {{ missing | tojson }}
    - install_recommends: False
{%- endif %}
