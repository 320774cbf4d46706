{#- A key was accepted, rejected or deleted; in whatever words the event says it, the runner reads the keys itself. #}
wgmesh_converge:
  runner.wgmesh.converge: []
