{#- A node published new facts. Its word is not believed: the runner reads the mine itself. #}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
        - node: {{ data.get('id', '') | string | tojson }}
