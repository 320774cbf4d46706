"""
Plan, prove, publish and push the WireGuard meshes of the policy, and show their state.

.. versionadded:: 0.1.0

It runs on the master, where the policy, the accepted keys and the mine are. Functions return plain data, which
``--out=json`` prints for programs.
"""

from saltext_wgmesh import salt_errors
from saltext_wgmesh.master.operator import drain as draining
from saltext_wgmesh.master.operator import merged_config, plain, run_converge, show
from saltext_wgmesh.master.operator import release as releasing
from saltext_wgmesh.master.operator import rollback as rolling_back
from saltext_wgmesh.master.operator import rotate as rotating
from saltext_wgmesh.master.operator import status as state
from saltext_wgmesh.master.records import spelling
from saltext_wgmesh.master.requests.request import Request, RequestKind

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


@salt_errors.for_runner
def plan():
    """
    Return what a converge would change, as readable lines by node. The nodes that are not in the plan are listed, and
    the result of its proof. Nothing is changed.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.plan
    """
    return plain.without_empty({mesh: one.as_dict() for mesh, one in show.plan(__opts__).items()})


@salt_errors.for_runner
def converge(node=None, hint=None, started=None, drifted=None, suspects=None, confirm=None):
    """
    Plan, prove, publish and push, so that every node that answers runs the current plan.

    Only one run takes place at a time. While another is in progress, this call queues its request, and the other runs
    once more. On the command line the call then waits for its turn, to report the result. Nodes whose view is unchanged
    get no job.

    The exit status is 1 if facts of a node were rejected, a node does not run what is published, or a loss is held. It
    is also 1 if a member or a link is down. On the command line the call asks the nodes for that, and gives new links
    20 seconds to come up.

    node
        A minion id that gets a push even if it left the last ones unanswered.

    hint
        A minion id that may know of a link that is down or up again. The node is asked; its name proves nothing.

    started
        A minion id whose minion may have started just now. If the policy has a place for it and it has no facts, it
        gets the job to apply the formula.

    drifted
        A minion id that may no longer hold what it applied. It applies its view again.

    suspects
        Comma-separated minion ids to which the links that *hint* may know of lead. Their neighbours are asked too.

    confirm
        The digest of a loss that is held because it would drop too much of a mesh. The loss is approved. It is an error
        if no such loss is held now.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.converge
        salt-run wgmesh.converge confirm=4f0c2a91d7be
    """
    result = run_converge.run_converge_with(
        __opts__, node=node, hint=hint, started=started, drifted=drifted, suspects=suspects, confirm=confirm
    )
    return plain.converged(result)


@salt_errors.for_runner
def verify():
    """
    Return whether every pair of nodes that must reach each other does, with everything up, with each relay down and
    with each link down. The published plan is checked, and the one that a converge would publish now.
    The exit status is 1 if some pair does not.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.verify
    """
    return plain.with_exit_status(show.proof(__opts__))


@salt_errors.for_runner
def status(live=True, watch=False):
    """
    Return generation, nodes, relays, links, the nodes that do not run what is published, and all outages. An outage
    says what is down since when, which nodes report it, and how long it must be up before it counts as up.

    The exit status is 1 if a member or a link is down now; ``down`` lists them. A member that did not answer is down
    unless a neighbour reports a link to it as up.

    live
        False: no node is asked for its links, and only outages count as down.

    watch
        True: print tables, refreshed in place until Ctrl-C. Needs a terminal.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.status
        salt-run wgmesh.status watch=True
    """
    if watch:
        return state.watch(__opts__)
    return plain.without_empty(plain.with_exit_status(state.status(__opts__, live=live)))


@salt_errors.for_runner
def rebalance():
    """
    Converge, and use recovered nodes and links at once. They need not be up for their hold-down time first, and
    recovering relays get their share of leaves.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rebalance
    """
    return plain.converged(run_converge.run_converge(__opts__, Request(kind=RequestKind.REBALANCE)))


@salt_errors.for_runner
def drain(node):
    """
    Move everything off a relay or a gateway, and wait until it forwards no packets. It is then safe to stop, and stays
    drained until ``wgmesh.undrain``. The exit status is 1 if something still depends on it after a minute;
    ``remaining`` lists what. It is an error to name any other node, since that forwards nothing.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.drain relay1
    """
    return draining.drain_node(__opts__, spelling.minion_id(__opts__, node)).as_dict()


@salt_errors.for_runner
def undrain(node):
    """
    Give a drained relay or gateway its share again.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.undrain relay1
    """
    return plain.converged(draining.undrain_node(__opts__, spelling.minion_id(__opts__, node)))


@salt_errors.for_runner
def rotate_preshared(mesh=None):
    """
    Converge with another secret for the preshared keys of a mesh, so that each pair of nodes gets another key. No
    session ends for it. Nodes that do not answer keep their keys until they do, and so do their neighbours with them.

    mesh
        The mesh's name; by default all meshes that have ``preshared_keys: true`` in their policy.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rotate_preshared
    """
    return plain.converged(rotating.rotate_psks(__opts__, mesh))


@salt_errors.for_runner
def rollback(generation, mesh=None):
    """
    Plan a mesh by the policy of an earlier generation, and converge. Facts, keys and health are the present ones, and
    the plan goes through proof and push like any other. The mesh is then pinned until its policy in the pillar changes.
    ``policy_pin`` says so, also in the report of each later converge.

    generation
        The number of one of the last generations; an error lists them. 0: back to the pillar's policy.

    mesh
        The mesh's name; may be omitted if there is only one.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rollback generation=7
        salt-run wgmesh.rollback generation=0 mesh=wg0
    """
    return plain.converged(rolling_back.pin_and_converge(__opts__, generation, mesh))


@salt_errors.for_runner
def rotate(target, force=False):
    """
    Replace the WireGuard keys of nodes without a lost packet.

    Each node creates a key beside its present one, and its neighbours accept both. The node then switches to the new
    key interface by interface, and deletes the old one. No two neighbours switch at once, and only one relay at a time.
    A rotation that is not complete when this returns goes on by itself; ``wgmesh.status`` shows what each node waits
    for.

    target
        A minion id or a glob over minion ids; ``'*'`` is all of them.

    force
        True: do not wait for neighbours that have not acknowledged the new keys. Such a neighbour loses its link to the
        node until it applies its view. Without it the node waits for at most six hours.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rotate web7
        salt-run wgmesh.rotate '*'
    """
    target = spelling.minion_id(__opts__, target)
    return plain.converged(rotating.rotate_keys(__opts__, target, force=force is True))


@salt_errors.for_runner
def release(node):
    """
    Free the addresses of a node that left, so that other nodes may get them. Its key must be deleted, and the node out
    of every published plan.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.release web7
    """
    return releasing.release(__opts__, spelling.minion_id(__opts__, node))


@salt_errors.for_runner
def explain(source, destination, mesh=None):
    """
    Return the path between two nodes in the published plan, and why packets take it.

    source
        The minion id that sends.

    destination
        The minion id that receives.

    mesh
        The mesh's name; may be omitted if there is only one.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.explain web1 db1
    """
    ends = (spelling.minion_id(__opts__, node) for node in (source, destination))
    return plain.without_empty(show.explain(__opts__, *ends, mesh).as_dict())


@salt_errors.for_runner
def whatif(down, mesh=None):
    """
    Return which nodes would be cut off, and which paths would change, if nodes or links failed.

    down
        Comma-separated minion ids, and links as ``a--b``.

    mesh
        The mesh's name; may be omitted if there is only one.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.whatif down=relay-fra1
        salt-run wgmesh.whatif down=relay-fra1--relay-nyc1,web1
    """
    return plain.without_empty(show.whatif(__opts__, spelling.minion_id(__opts__, down), mesh).as_dict())


@salt_errors.for_runner
def ports(mesh=None):
    """
    Return the UDP ports that firewalls must open at each node, and the nodes that call them, with their addresses.

    The published plan counts, and the one that a converge would publish now. A node that is not listed is called by no
    other. A port that a router forwards is listed with the address and port at which the node is called.

    mesh
        The mesh's name; by default all meshes.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.ports
        salt-run wgmesh.ports wg0
    """
    return plain.ports(show.ports(__opts__, mesh))


@salt_errors.for_runner
def paths(mesh=None, family=None):
    """
    Return the nodes on the way from each node to each other, both ends included.

    mesh
        The mesh's name; may be omitted if there is only one.

    family
        4 or 6: the paths of IPv4 or IPv6 packets. By default those of the first family that both ends have.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.paths --out=json
        salt-run wgmesh.paths family=6
    """
    return show.paths(__opts__, mesh, family)


@salt_errors.for_runner
def graph(mesh=None, style="mermaid"):
    """
    Return the published mesh as a picture.

    mesh
        The mesh's name; may be omitted if there is only one.

    style
        ``mermaid``, ``dot`` or ``table``.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.graph style=dot | dot -Tsvg > mesh.svg
    """
    return show.graph(__opts__, mesh, style)


@salt_errors.for_runner
def config():
    """
    Return the master configuration for this installation, to be written to ``/etc/salt/master.d/wgmesh.conf``.

    It contains what the master's files have under the same keys, so that nothing is lost. If a key can't be merged, the
    exit status is 1, and a comment names the key, its file and the remedy.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.config > /etc/salt/wgmesh.conf && mv /etc/salt/wgmesh.conf /etc/salt/master.d/
    """
    return merged_config.merged_config(__opts__)
