"""polling_agent.py URL GROUP ID KEYS INTERVAL WEIGHT

A polling agent of ceilometer in the namespace "central", with a discovery that needs no OpenStack: it finds the resources
"alarm-<n>". So GROUP is that of all such discoveries, "central-global", and WEIGHT is 1. In each interval it does what
AgentManager.interval_task and the polling of a source do: it runs its watchers, and discovers its part of the resources.

Commands: {"do": "join"}, {"do": "leave"}. It says when it asks for its part, and what the answer is.
"""

import sys
import types

from oslo_service import backend

# The other one needs eventlet.
backend.init_backend(backend.BackendType.THREADING)

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
        assert weight == "1", "agents have no other"
        self._url, self._group, self._member = url, group, member.encode()
        self._conf = cfg.ConfigOpts()
        self._conf.register_opts(manager.POLLING_OPTS, group="polling")
        self._conf.register_opt(cfg.StrOpt("backend_url"), group="coordination")
        self._conf([], project="ceilometer")
        self._conf.set_override("enable_notifications", False, group="polling")
        super().__init__(keys, interval)

    def begin(self):
        self._agent = manager.AgentManager(0, self._conf, namespaces=["central"])
        self._discovery = Discovery(self._conf)
        self._agent.discoveries = [types.SimpleNamespace(name="all", obj=self._discovery)]
        self._agent.polling_manager = types.SimpleNamespace(sources=[])
        # As the agent does it, which takes a random id.
        self._agent.partition_coordinator = coordination.get_coordinator(self._url, self._member)
        self._agent.partition_coordinator.start(start_heart=True)
        self._agent.join_partitioning_groups()
        assert list(self._agent.hashrings) == [self._group], self._agent.hashrings

    def part(self, keys):
        self._discovery.resources = keys
        self._agent.partition_coordinator.run_watchers()
        return self._agent.discover(["all"])

    def is_in(self):
        return self._member in self._agent.hashrings[self._group].ring.nodes

    def end(self):
        self._agent.partition_coordinator.stop()


cycle.main(lambda: Service(*sys.argv[1:]), "ceilometer", "tooz")
