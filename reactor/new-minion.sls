{#- A minion started: for the first time, again, or after its key was accepted by whatever way. #}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - started: {{ data.get('id') | string | yaml_dquote }}
