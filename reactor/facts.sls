{#- A node published new facts. Nothing of the event is believed or passed on: the runner reads the mine itself. #}
wgmesh_converge:
  runner.wgmesh.converge: []
