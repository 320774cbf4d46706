# salt '*' state.apply wgmesh: this node is in every mesh that the policy gives it a place in.
include:
  - wgmesh.tools
  - wgmesh.mesh
