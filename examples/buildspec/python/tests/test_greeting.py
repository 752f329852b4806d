import sys

sys.path.insert(0, "app")

from greeting import greeting


def test_greets_by_name():
    assert greeting("api") == "Hello, api"
