# salt '*' state.apply wgmesh: this node joins every mesh that the policy has a place for it in.
# To read a file from the master costs as much as a state, so tools.sls is included only if a tool is missing.
{%- if not salt['cmd.which']('wg') or not (salt['cmd.which']('wireguard-go') or salt['file.directory_exists']('/sys/module/wireguard')) %}
include:
  - wgmesh.tools
{%- endif %}

# The node's key, and its facts for the master.
wgmesh-key:
  wgmesh.key_present: []

wgmesh-facts:
  wgmesh.facts_published:
    - require:
      - wgmesh: wgmesh-key

# The watcher detects links that go down, and routes around them, without the master or the minion. It starts while the master
# plans.
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
  wgmesh.watcher_running: []
{%- endif %}

# The node's interfaces, as planned by the master.
wgmesh-joined:
  wgmesh.joined:
    - require:
      - wgmesh: wgmesh-facts

# The beacon sends the master an event when the watcher detects something.
wgmesh-beacon:
  beacon.present:
    - name: wgmesh
    - save: True
    - interval: 1
