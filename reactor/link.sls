{#- Links of a node died or came back. Only the name that the event gives is passed on, and believed of nothing. #}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - hint: {{ data.get('id') | string | yaml_dquote }}
