"""The tasks that both sides know by name."""

import time

from taskflow import task


class Double(task.Task):
    """Doubles a number, in two steps."""

    default_provides = "doubled"

    def execute(self, number):
        self.update_progress(0.5)
        return number * 2

    def revert(self, number, result, **kwargs):
        return f"halved {result} to {number}"


class Fail(task.Task):
    """Fails, with a cause."""

    def execute(self, doubled):
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError(f"cannot take {doubled}") from error

    def revert(self, doubled, **kwargs):
        return "nothing to undo"


class Nap(task.Task):
    """Takes some time."""

    def execute(self, seconds):
        time.sleep(seconds)
        return "rested"
