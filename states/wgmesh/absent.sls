# salt 'web7' state.apply wgmesh.absent: nothing of any mesh is left on this node, and nothing else of it is touched
# (packages stay, and so does forwarding, which others may rely on).
# First take it out of the policy, or the mesh: else the master's next push brings it back. What is to go can be said:
#   pillar='{"wgmesh_absent": {"meshes": ["wg0"], "key": true}}'
# The node's key goes only if that is asked for, and with the last mesh; so do, unasked, the watcher and the beacon.
{%- set here = salt['wgmesh.meshes']() %}
{%- set asked = salt['pillar.get']('wgmesh_absent', {}) %}
{%- set leaving = asked.get('meshes', here) %}
{%- if leaving is string %}
{%- set leaving = [leaving] %}
{%- endif %}
{%- set left = here | difference(leaving) %}

{%- for mesh in leaving %}
wgmesh-{{ mesh }}-absent:
  wgmesh.absent:
    - name: {{ mesh | yaml_dquote }}
    - key: {{ asked.get('key', False) | to_bool }}
{%- endfor %}
{%- if not left %}
{%- if 'wgmesh' in (salt['beacons.list'](return_yaml=False) or {}) %}

# Not beacon.absent, which in test mode says of no beacon that it would go.
wgmesh-beacon-absent:
  module.run:
    - beacons.delete:
      - name: wgmesh
    - beacons.save: []
{%- endif %}
{%- if salt['file.directory_exists']('/run/systemd/system') %}

wgmesh-watch-dead:
  service.dead:
    - name: wgmesh-watch
    - enable: False

wgmesh-watch-absent:
  file.absent:
    - name: /etc/systemd/system/wgmesh-watch.service
    - require:
      - service: wgmesh-watch-dead
  cmd.run:
    - name: systemctl daemon-reload
    - onchanges:
      - file: wgmesh-watch-absent
{%- else %}

wgmesh-engine-absent:
  file.absent:
    - name: {{ opts['config_dir'] }}/minion.d/wgmesh.conf
{%- endif %}

wgmesh-departed:
  wgmesh.departed:
    - key: {{ asked.get('key', False) | to_bool }}
{%- if leaving %}
    - require:
{%- for mesh in leaving %}
      - wgmesh: wgmesh-{{ mesh }}-absent
{%- endfor %}
{%- endif %}
{%- endif %}
