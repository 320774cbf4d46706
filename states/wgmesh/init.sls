# salt '*' state.apply wgmesh: this node is in every mesh that the policy gives it a place in.
# A file read from the master costs as much as a state, so tools.sls is read only where a tool is missing.
{%- if not salt['cmd.which']('wg') or not (salt['cmd.which']('wireguard-go') or salt['file.directory_exists']('/sys/module/wireguard')) %}
include:
  - wgmesh.tools
{%- endif %}

# The node's key, its word to the master, and its interfaces as the master planned them.
wgmesh-key:
  wgmesh.key_present: []

wgmesh-facts:
  wgmesh.facts_published:
    - require:
      - wgmesh: wgmesh-key

wgmesh-joined:
  wgmesh.joined:
    - require:
      - wgmesh: wgmesh-facts
