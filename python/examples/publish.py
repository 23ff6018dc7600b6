"""Publishes one event to a webhook: publish.py URL DATA_DIR"""

import sys

import tidewire

CONFIG = """
[[destination]]
name = "hook"
type = "webhook"
url = "{url}"

[[rule]]
id = "everything"
events = ["*"]
destinations = ["hook"]
"""


def main(url: str, data_dir: str) -> None:
    with tidewire.Engine(CONFIG.format(url=url), data_dir=data_dir) as engine:
        created = tidewire.EventType.OBJECT_CREATED_PUT
        accepted = engine.publish("photos", "cats/tom.jpg", created, size=48_213, tags={"project": "cats"})
        engine.flush(timeout=10)
        print("accepted" if accepted else "not wanted", "and", engine.stats()["delivered"], "delivered")


if __name__ == "__main__":
    main(*sys.argv[1:])
