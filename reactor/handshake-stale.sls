{#- Peers of a node without a watcher stopped to answer, or answer again. Only the name is passed on, as a hint. #}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - hint: {{ data.get('id') | string | yaml_dquote }}
