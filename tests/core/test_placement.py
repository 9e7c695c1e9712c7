"""A plan is the same for the same topology, what cannot fit is told before anything starts, ids stay where they are."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.placement import LABEL_VALUE, Node, Placed, partition, plan, shortages, site_label
from mesh.topology.model import AgentSpec, Topology

MIB = 2**20


def topology(agents: dict[str, Any], sites: dict[str, Any] | None = None) -> Topology:
    found = sites or {
        "core": {"tier": "cloud"},
        "b-edge": {"tier": "edge", "uplink": {"to": "core"}},
        "a-edge": {"tier": "edge", "uplink": {"to": "core"}, "labels": {"area": "x"}},
    }
    return Topology.model_validate({"apiVersion": "mesh/v1", "mesh": "m", "sites": found, "agents": agents})


def agent(replicas: int = 1, cpus: float = 0.1, memory: str = "300MiB", gpus: float = 0.0, **sites: Any) -> Any:
    resources = {"cpus": cpus, "memory": memory, "gpus": gpus}
    return {"class": "a.b:C", "sites": sites or {"tier": "edge"}, "replicas": replicas, "resources": resources}


def node(*sites: str, cpus: float = 4.0, memory: int = 8192 * MIB, gpus: float = 0.0) -> Node:
    return Node({site_label("m", site): LABEL_VALUE for site in sites}, cpus, memory, gpus)


def at_a_site(*needs: dict[str, Any]) -> list[Placed]:
    """One replica at `a-edge` for each of the needs."""
    selector = {site_label("m", "a-edge"): LABEL_VALUE}
    specs = [AgentSpec.model_validate(agent(**need)) for need in needs]
    return [Placed("a-edge", "edge", f"agent-{n}", 0, 1, spec, selector) for n, spec in enumerate(specs)]


def test_every_replica_of_every_selected_site_is_planned() -> None:
    placed = plan(topology({"z": agent(replicas=2), "a": agent(names=["core"])}))
    assert [replica.name for replica in placed] == ["a-edge/z/0", "a-edge/z/1", "b-edge/z/0", "b-edge/z/1", "core/a/0"]
    assert {(replica.agent, replica.count, replica.tier) for replica in placed} == {("z", 2, "edge"), ("a", 1, "cloud")}


def test_replica_is_placed_by_the_label_of_its_site_alone() -> None:
    (replica,) = plan(topology({"a": agent(names=["core"])}))
    assert replica.label_selector == {"mesh-m/core": "here"}


def test_agent_that_selects_no_site_has_no_replica() -> None:
    assert plan(topology({"a": agent(labels={"area": "nowhere"})})) == ()


agent_names = st.lists(st.sampled_from(["a", "b", "c-d", "e_f", "z"]), min_size=1, unique=True)


@given(agent_names, st.randoms(use_true_random=False), st.integers(1, 3))
@settings(deadline=None)
def test_plan_is_sorted_and_does_not_depend_on_the_order_of_the_file(names: list[str], random: Any, count: int) -> None:
    shuffled = names.copy()
    random.shuffle(shuffled)
    first = plan(topology({name: agent(replicas=count) for name in names}))
    second = plan(topology({name: agent(replicas=count) for name in shuffled}))
    assert first == second
    order = [(replica.site, replica.agent, replica.index) for replica in first]
    assert all(one < other for one, other in pairwise(order))


def test_what_fits_has_no_shortage() -> None:
    placed = plan(topology({"a": agent(replicas=2, cpus=1.0)}))
    assert shortages(placed, [node("a-edge", "b-edge", cpus=4.0)]) == ()


def test_missing_label_is_told_with_the_label() -> None:
    (told, *_) = shortages(plan(topology({"a": agent()})), [node("b-edge")])
    assert told == "a-edge/a/0 needs a node labelled mesh-m/a-edge and there is none"


def test_label_with_another_value_is_no_label() -> None:
    elsewhere = Node({site_label("m", "a-edge"): "there"}, 4.0, 8192 * MIB)
    assert "labelled" in shortages(at_a_site({}), [elsewhere])[0]


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ({"cpus": 4.5}, "needs 4.5 cpus"),
        ({"memory": "9GiB"}, "9216 MiB"),
        ({"gpus": 1.0}, "1 gpus"),
    ],
)
def test_too_much_of_anything_is_told_with_what_there_is(need: dict[str, Any], told: str) -> None:
    (sentence,) = shortages(at_a_site(need), [node("a-edge")])
    assert told in sentence
    assert sentence.endswith("the nodes of a-edge have at most 4 cpus, 8192 MiB and 0 gpus left")


def test_resources_are_used_up_by_the_replicas_before() -> None:
    assert shortages(at_a_site({"cpus": 3.0}, {"cpus": 1.0}), [node("a-edge", cpus=4.0)]) == ()
    assert len(shortages(at_a_site({"cpus": 3.0}, {"cpus": 1.5}), [node("a-edge", cpus=4.0)])) == 1


@pytest.mark.parametrize("count", range(1, 21))
def test_tenths_of_a_core_add_up_exactly(count: int) -> None:
    assert shortages(at_a_site(*[{"cpus": 0.1}] * count), [node("a-edge", cpus=count / 10)]) == ()


def test_one_replica_is_never_split_over_nodes() -> None:
    assert len(shortages(at_a_site({"cpus": 3.0}), [node("a-edge", cpus=2.0), node("a-edge", cpus=2.0)])) == 1


def test_large_replicas_are_packed_before_small_ones() -> None:
    needs = [{"cpus": 1.0}, {"cpus": 1.0}, {"cpus": 2.0}]
    assert shortages(at_a_site(*needs), [node("a-edge", cpus=2.0), node("a-edge", cpus=2.0)]) == ()


def test_replica_without_gpu_leaves_the_gpu_node_to_the_one_that_needs_it() -> None:
    needs = [{"cpus": 4.0}, {"cpus": 4.0, "gpus": 1.0}]
    assert shortages(at_a_site(*needs), [node("a-edge", gpus=1.0), node("a-edge")]) == ()


def test_nodes_of_other_sites_are_left_alone() -> None:
    assert len(shortages(at_a_site({"cpus": 3.0}), [node("a-edge", cpus=1.0), node("b-edge", cpus=8.0)])) == 1


cpu_shares = st.integers(1, 40).map(lambda tenths: tenths / 10)
some_needs = st.lists(st.fixed_dictionaries({"cpus": cpu_shares}), max_size=8)
some_nodes = st.lists(st.builds(lambda cpus: node("a-edge", cpus=cpus), cpu_shares), min_size=1, max_size=3)


@given(some_needs, some_nodes)
@settings(deadline=None)
def test_no_shortage_means_that_the_sum_of_all_needs_is_there(needs: list[Any], nodes: list[Node]) -> None:
    placed = at_a_site(*needs)
    fitting = sum(need["cpus"] for need in needs) <= sum(n.cpus for n in nodes) + 1e-9
    assert fitting or shortages(placed, nodes)


@given(some_needs, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_shortages_are_sorted_and_do_not_depend_on_the_order_of_the_replicas(needs: list[Any], random: Any) -> None:
    placed = at_a_site(*needs)
    shuffled = placed.copy()
    random.shuffle(shuffled)
    told = shortages(placed, [node("a-edge", cpus=3.0)])
    assert shortages(shuffled, [node("a-edge", cpus=3.0)]) == told == tuple(sorted(told))


@given(some_needs, cpu_shares)
@settings(deadline=None)
def test_one_node_holds_a_site_exactly_when_the_sum_of_its_needs_is_there(needs: list[Any], cpus: float) -> None:
    tenths = sum(round(need["cpus"] * 10) for need in needs)
    assert (shortages(at_a_site(*needs), [node("a-edge", cpus=cpus)]) == ()) == (tenths <= round(cpus * 10))


@given(st.text(), st.integers(1, 64))
@settings(deadline=None)
def test_every_id_belongs_to_exactly_one_replica_and_always_the_same(id: str, count: int) -> None:
    assert partition(id, count) in range(count)
    assert partition(id, count) == partition(id, count)


@pytest.mark.parametrize(("id", "replica"), [("1", 3), ("cell-7", 1), ("Zürich", 2), ("", 0)])
def test_partition_is_the_same_in_every_release(id: str, replica: int) -> None:
    """Replicas of two releases run side by side during an upgrade."""
    assert partition(id, 4) == replica


def test_ids_are_spread_over_all_replicas() -> None:
    counts = Counter(partition(str(id), 8) for id in range(8000))
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.2 * 1000
