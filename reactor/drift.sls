{#- A node may not hold any more what it applied. Only its name is passed on; applying a view twice does no harm. #}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - drifted: {{ data.get('id') | string | yaml_dquote }}
