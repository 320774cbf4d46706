{#- Peers of a node without a watcher stopped to answer, or answer again. Only names are passed on, as hints. #}
{%- set neighbours = data.get('neighbours') %}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - hint: {{ data.get('id') | string | yaml_dquote }}
      - suspects: {{ (neighbours if neighbours is sequence else []) | map('string') | join(',') | yaml_dquote }}
