"""engine.py URL EXCHANGE TOPIC

Runs flows with TaskFlow's worker-based engine on the worker at TOPIC, and says what came out: first one that
succeeds, then one whose second task fails, so that both are reverted.
"""

import sys

import taskflow.engines
from taskflow import task
from taskflow.patterns import linear_flow
from taskflow.types import failure

import interop_tasks
import peer


def shown(value):
    if isinstance(value, failure.Failure):
        shown = value.to_dict()
        return {"exception": shown["exception_str"], "types": shown["exc_type_names"], "causes": shown["causes"]}
    return value


def run(name, tasks, store):
    url, exchange, topic = sys.argv[1:]
    progress = []
    for each in tasks:
        each.notifier.register(
            task.EVENT_UPDATE_PROGRESS,
            lambda event, details, name=each.name: progress.append([name, details["progress"]]),
        )
    engine = taskflow.engines.load(
        linear_flow.Flow(name).add(*tasks),
        store=store,
        engine="worker-based",
        url=url,
        exchange=exchange,
        topics=[topic],
        transition_timeout=30,
    )
    raised = None
    try:
        engine.run()
    except Exception as error:
        raised = {"kind": type(error).__name__, "text": str(error)}
    results = {}
    for each in tasks:
        results[each.name] = {
            "state": engine.storage.get_atom_state(each.name),
            "failure": shown(engine.storage.get_execute_failures().get(each.name)),
            "reverted": shown(engine.storage.get_revert_result(each.name))
            if engine.storage.get_atom_state(each.name) == "REVERTED"
            else None,
        }
    peer.say(
        flow=name,
        state=engine.storage.get_flow_state(),
        raised=raised,
        tasks=results,
        store={key: shown(value) for key, value in engine.storage.fetch_all().items()},
        progress=progress,
    )


peer.end_with_stdin()
run("succeeds", [interop_tasks.Double("double")], {"number": 21})
run("fails", [interop_tasks.Double("double"), interop_tasks.Fail("fail")], {"number": 4})
