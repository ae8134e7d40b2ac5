"""polling_agent.py URL GROUP ID KEYS INTERVAL WEIGHT

A polling agent of ceilometer in the namespace "central", with a discovery that needs no OpenStack: it finds the resources
"alarm-<n>". So GROUP is that of all such discoveries, "central-global", and WEIGHT is 1. In each interval it does what
AgentManager.interval_task and the polling of a source do: it runs its watchers, and discovers its part of the resources.

Commands: {"do": "join"}, {"do": "leave"}. It says when it asks for its part, and what the answer is.
"""

import sys
import types
import warnings

warnings.simplefilter("ignore")

from oslo_config import cfg
from tooz import coordination

from ceilometer.polling import manager, plugin_base

import cycle

# No pollsters and discoveries of OpenStack.
manager.AgentManager._extensions = staticmethod(lambda *_: types.SimpleNamespace(extensions=[]))
manager.AgentManager._extensions_from_builder = lambda *_: []
manager.AgentManager.create_dynamic_pollsters = lambda *_: []


class Discovery(plugin_base.DiscoveryBase):
    """Finds all resources; the manager keeps its part of them."""

    resources = []

    def discover(self, manager, param=None):
        return self.resources


class Service(cycle.Service):
    """One life of the agent, from its start to its end."""

    def __init__(self, url, group, member, keys, interval, weight):
        conf = cfg.ConfigOpts()
        conf.register_opts(manager.POLLING_OPTS, group="polling")
        conf.register_opt(cfg.StrOpt("backend_url"), group="coordination")
        conf([], project="ceilometer")
        conf.set_override("enable_notifications", False, group="polling")
        agent = manager.AgentManager(0, conf, namespaces=["central"])
        self._discovery = Discovery(conf)
        agent.discoveries = [types.SimpleNamespace(name="all", obj=self._discovery)]
        # As the agent does it, which takes a random id.
        agent.partition_coordinator = coordination.get_coordinator(url, member.encode())
        agent.polling_manager = types.SimpleNamespace(sources=[])
        agent.partition_coordinator.start(start_heart=True)
        agent.join_partitioning_groups()
        assert list(agent.hashrings) == [group] and weight == "1", agent.hashrings
        self._agent = agent
        super().__init__(int(keys), float(interval))

    def part(self, keys):
        self._discovery.resources = keys
        self._agent.partition_coordinator.run_watchers()
        return self._agent.discover(["all"])

    def end(self):
        self._agent.partition_coordinator.stop()


cycle.main(lambda: Service(*sys.argv[1:]))
