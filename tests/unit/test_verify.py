"""The proof against an oracle that tries everything, and against plans that are broken on purpose."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import verify
from saltext_wgmesh.core.types import Plan
from tests.unit import mutants, oracle, strategies

CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=CHECKS, derandomize=True)
MORE = settings(max_examples=60, deadline=None, suppress_health_check=CHECKS, derandomize=True)


@MORE
@given(strategies.plans())
def test_plans_of_the_planner_hold(plan: Plan) -> None:
    """Whatever policy and facts, the planner's plan is proven, and the oracle agrees."""
    assert verify.check(plan) == ()
    assert oracle.broken(plan) == []


@pytest.mark.parametrize("mutant", mutants.CERTAIN, ids=lambda m: m.__name__)
@FEW
@given(data=st.data())
def test_mutants_are_caught(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """A plan that is wrong in one place of one view is not proven."""
    plan = data.draw(strategies.plans())
    assert verify.check(mutant(plan, data.draw)) != ()


@pytest.mark.parametrize("mutant", mutants.POSSIBLE, ids=lambda m: m.__name__)
@FEW
@given(data=st.data())
def test_mutants_that_the_oracle_calls_broken_are_caught(mutant: mutants.Mutant, data: st.DataObject) -> None:
    """Where next hops differ, the proof fails for every plan in which some packet is lost."""
    plan = data.draw(strategies.plans(relays=4))
    broken = mutant(plan, data.draw)
    assume(broken != plan)
    lost = oracle.broken(broken)
    found = verify.check(broken)
    if lost:
        assert found != (), lost[:3]
    elif mutant in mutants.WITHIN_A_ROUTE:
        assert [p for p in found if "that come by a trunk can go" not in p.what] == []
