# salt '*' state.apply wgmesh: this node is in every mesh that the policy gives it a place in.
# A file read from the master costs as much as a state, so tools.sls is read only where a tool is missing.
{%- if not salt['cmd.which']('wg') or not (salt['cmd.which']('wireguard-go') or salt['file.directory_exists']('/sys/module/wireguard')) %}
include:
  - wgmesh.tools
{%- endif %}

# The node's key, and its word to the master.
wgmesh-key:
  wgmesh.key_present: []

wgmesh-facts:
  wgmesh.facts_published:
    - require:
      - wgmesh: wgmesh-key

# The watcher, which finds dead links and routes around them; it needs neither the master nor the minion. It starts while
# the master plans.
{%- if salt['file.directory_exists']('/run/systemd/system') %}
wgmesh-watch:
  file.managed:
    - name: /etc/systemd/system/wgmesh-watch.service
    - contents: {{ salt['wgmesh.watch_unit']() | yaml_encode }}
    - mode: '0644'
  service.running:
    - name: wgmesh-watch
    - enable: True
    - watch:
      - file: wgmesh-watch
{%- else %}
wgmesh-engine:
  file.managed:
    - name: {{ opts['config_dir'] }}/minion.d/wgmesh.conf
    - contents: '{engines: [{wgmesh: {}}]}'
    - makedirs: True

wgmesh-watch:
  wgmesh.watched: []
{%- endif %}

# The node's interfaces, as the master planned them.
wgmesh-joined:
  wgmesh.joined:
    - require:
      - wgmesh: wgmesh-facts

# What the watcher finds, the beacon tells the master.
wgmesh-beacon:
  beacon.present:
    - name: wgmesh
    - save: True
    - interval: 1
