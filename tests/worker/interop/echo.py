"""echo.py URL EXCHANGE TOPIC REPLY_TOPIC

Consumes TOPIC with TaskFlow's own queue and exchange, says how each message looks to kombu, and sends its content to
REPLY_TOPIC the way TaskFlow sends its messages.
"""

import sys

import kombu
from taskflow.engines.worker_based import proxy

import peer


class Content:
    """The part of a TaskFlow message that its proxy looks at."""

    def __init__(self, kind, body):
        self.TYPE = kind
        self._body = body

    def to_dict(self):
        return self._body


def main():
    url, exchange, topic, reply_topic = sys.argv[1:]
    peer.end_with_stdin()
    taskflow = proxy.Proxy(topic, exchange, url=url)

    def on_message(body, message):
        peer.say(
            properties=message.properties,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=message.headers,
            delivery_info={key: message.delivery_info[key] for key in ("exchange", "routing_key")},
            body=bytes(message.body).decode() if isinstance(message.body, (bytes, memoryview)) else message.body,
        )
        message.ack()
        properties = message.properties
        taskflow.publish(
            Content(properties["type"], body),
            reply_topic,
            reply_to=properties.get("reply_to"),
            correlation_id=properties.get("correlation_id"),
        )

    with kombu.Connection(url) as connection:
        queue = taskflow._make_queue(topic, taskflow._exchange, channel=connection)
        with connection.Consumer(queues=queue, callbacks=[on_message]):
            peer.say(ready=True)
            while True:
                connection.drain_events()


main()
