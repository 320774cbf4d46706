# salt 'web7' state.apply wgmesh.absent: remove all meshes from this node, and nothing else. Packages stay, and so does
# forwarding, which other programs may need.
# First remove the node or the mesh from the policy, or the master's next push brings everything back.
# To remove only some meshes, or the node's key with the last one:
#   pillar='{"wgmesh_absent": {"meshes": ["wg0"], "key": true}}'
# The watcher and the beacon are removed with the last mesh.
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

# Not beacon.absent: in test mode it never reports that a beacon would be removed.
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

wgmesh-uninstalled:
  wgmesh.uninstalled:
    - key: {{ asked.get('key', False) | to_bool }}
{%- if leaving %}
    - require:
{%- for mesh in leaving %}
      - wgmesh: wgmesh-{{ mesh }}-absent
{%- endfor %}
{%- endif %}
{%- endif %}
