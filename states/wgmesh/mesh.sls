# The node's key, its word to the master, and its interfaces as the master planned them.
wgmesh-key:
  wgmesh.key_present: []

wgmesh-facts:
  wgmesh.facts_published:
    - require:
      - wgmesh: wgmesh-key

wgmesh-joined:
  wgmesh.joined:
    - require:
      - wgmesh: wgmesh-facts
