"""The proof against an oracle that tries every packet, and against plans that are broken on purpose."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.proof.prove import prove
from tests.unit.harness import mutants, oracle, strategies

CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=CHECKS, derandomize=True)
MORE = settings(max_examples=60, deadline=None, suppress_health_check=CHECKS, derandomize=True)


@MORE
@given(strategies.plans())
def test_prove_planner_output_holds(plan: Plan) -> None:
    """For any policy and facts, the planner's plan is proven, and the oracle agrees."""
    assert prove(plan) == ()
    assert oracle.broken(plan) == []


@pytest.mark.parametrize("mutant", mutants.CERTAIN, ids=lambda m: m.__name__)
@FEW
@given(data=st.data())
def test_prove_certain_mutant_fails(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """A plan with one mistake in one view is not proven."""
    plan = data.draw(strategies.plans())
    assert prove(mutant(plan, data.draw)) != ()


@pytest.mark.parametrize("mutant", mutants.POSSIBLE, ids=lambda m: m.__name__)
@FEW
@given(data=st.data())
def test_prove_mutant_with_lost_packet_fails(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """Where next hops differ, the proof fails for every plan in which some packet is lost."""
    plan = data.draw(strategies.plans(relays=4))
    broken = mutant(plan, data.draw)
    assume(broken != plan)
    lost = oracle.broken(broken)
    found = prove(broken)
    if lost:
        assert found != (), lost[:3]
    elif mutant in mutants.WITHIN_A_ROUTE:
        assert [p for p in found if "that come by a trunk can go" not in p.message] == []
