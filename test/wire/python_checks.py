"""What checks of a live engine by the official Python client share. Arguments of such a script begin with URL MODEL.

Events and answers are validated against the client's pydantic models, which the client itself only constructs.
"""

import json
import sys
import traceback

from openai import OpenAI
from openai.types.responses import Response
from pydantic import TypeAdapter

URL, MODEL = sys.argv[1:3]
TERMINAL = {"response.completed", "response.incomplete", "response.failed", "error"}

client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)


def validate(declared, value):
    """Raises unless the JSON that came from the wire fits the declared type."""
    TypeAdapter(declared).validate_python(value.to_dict(mode="json"))


def raises(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.code == code, f"{error.code} instead of {code}"
        return error
    raise AssertionError(f"nothing was refused, expected {code}")


def check_events(events, declared):
    """Lifecycle, numbering and types of one response's events; returns its final response."""
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events))), numbers
    official = [event for event in events if not event.type.startswith("nvlm.")]
    kinds = []
    for event in official:
        validate(declared, event)
        if event.type != "response.queued" and (not kinds or kinds[-1] != event.type):
            kinds.append(event.type)
    assert kinds[:-1] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ], kinds
    assert kinds[-1] in ("response.completed", "response.incomplete"), kinds
    response = events[-1].response
    validate(Response, response)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == response.output_text, (text, response.output_text)
    return response


def read_response(connection):
    events = []
    for event in connection:
        events.append(event)
        if event.type in TERMINAL:
            return events
    raise AssertionError("the socket closed")


def run(checks):
    """Prints one line of JSON per check: {"check": name, "error": null or the traceback}."""
    for check in checks:
        try:
            check()
            failure = None
        except Exception:
            failure = traceback.format_exc()
        print(json.dumps({"check": check.__name__, "error": failure}), flush=True)
