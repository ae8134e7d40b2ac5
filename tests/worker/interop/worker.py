"""worker.py URL EXCHANGE TOPIC

Runs a TaskFlow worker until stdin ends.
"""

import sys
import threading

from taskflow.engines.worker_based import worker

import interop_tasks
import peer

url, exchange, topic = sys.argv[1:]
peer.end_with_stdin()
served = worker.Worker(
    exchange,
    topic,
    [interop_tasks.Double, interop_tasks.Fail, interop_tasks.Nap],
    threads_count=2,
    url=url,
)
threading.Thread(target=lambda: (served.wait(), peer.say(ready=True)), daemon=True).start()
served.run(display_banner=False)
