"""fenced_row.py

A row in a database, for the test of the statement in docs/guarantees.md.

Commands: {"do": "run", "statement": s, "values": {...}}, which says how many rows it has changed, {"do": "row"}.
"""

import sqlite3

import peer


def main():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE alarms (id TEXT PRIMARY KEY, state TEXT, token INTEGER)")
    database.execute("INSERT INTO alarms VALUES ('cpu', 'ok', 0)")
    peer.ready()
    for command in peer.commands():
        if command["do"] == "run":
            peer.say(changed=database.execute(command["statement"], command["values"]).rowcount)
        else:
            state, token = database.execute("SELECT state, token FROM alarms").fetchone()
            peer.say(state=state, token=token)


main()
