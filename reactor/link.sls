{#- Links of a node died or came back. Only names that the event gives are passed on, and believed of nothing. #}
{%- set neighbours = data.get('neighbours') %}
wgmesh_converge:
  runner.wgmesh.converge:
    - args:
      - hint: {{ data.get('id') | string | yaml_dquote }}
      - suspects: {{ (neighbours if neighbours is sequence else []) | map('string') | join(',') | yaml_dquote }}
