"""Pictures sent by the official Python client. Usage: python-images.py URL MODEL PICTURE EXPECTED

PICTURE is a PNG file, EXPECTED a JSON object: `question`, `tokens` of the prompt with the picture, `low_tokens` of the same with
detail low, and the greedy `text` of 8 tokens.
"""

import asyncio
import base64
import json
import sys

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from python_checks import MODEL, TERMINAL, URL, check_events, client, raises, read_response, run, validate

with open(sys.argv[3], "rb") as file:
    PICTURE = "data:image/png;base64," + base64.b64encode(file.read()).decode()
EXPECTED = json.loads(sys.argv[4])


def asked(detail="auto", picture=PICTURE):
    """`input` of the responses interface."""
    parts = [
        {"type": "input_image", "image_url": picture, "detail": detail},
        {"type": "input_text", "text": EXPECTED["question"]},
    ]
    return [{"role": "user", "content": parts}]


def messages(picture=PICTURE):
    parts = [
        {"type": "image_url", "image_url": {"url": picture, "detail": "high"}},
        {"type": "text", "text": EXPECTED["question"]},
    ]
    return [{"role": "user", "content": parts}]


def check_answer(response, tokens=EXPECTED["tokens"]):
    assert response.output_text == EXPECTED["text"], response.output_text
    assert response.usage.input_tokens == tokens, response.usage


def responses_over_the_socket():
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input=asked(), max_output_tokens=8)
        first = check_events(read_response(connection), ResponsesServerEvent)
        check_answer(first)
        connection.response.create(
            model=MODEL, input="And what else?", max_output_tokens=8, previous_response_id=first.id
        )
        second = check_events(read_response(connection), ResponsesServerEvent)
        assert second.usage.input_tokens > EXPECTED["tokens"]
        # The picture is in the prefix that is found again.
        assert second.usage.input_tokens_details.cached_tokens > 256
        connection.response.create(model=MODEL, input=asked("low"), max_output_tokens=1)
        low = check_events(read_response(connection), ResponsesServerEvent)
        assert low.usage.input_tokens == EXPECTED["low_tokens"], low.usage


def refused_on_the_socket():
    with client.responses.connect() as connection:
        broken = "data:image/png;base64,bm8gcGljdHVyZQ=="
        connection.response.create(model=MODEL, input=asked(picture=broken), stream_id="lane")
        [error] = read_response(connection)
        validate(ResponsesServerEvent, error)
        assert error.error.code == "invalid_request" and "picture 1 of 1" in error.error.message, error
        assert error.error.param == "input[0].content[0].image_url", error
        connection.response.create(model=MODEL, input=asked(), max_output_tokens=8)
        check_answer(check_events(read_response(connection), ResponsesServerEvent))


def asynchronous_socket():
    async def create():
        asynchronous = AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
        events = []
        async with asynchronous.responses.connect() as connection:
            await connection.response.create(model=MODEL, input=asked("high"), max_output_tokens=8)
            async for event in connection:
                events.append(event)
                if event.type in TERMINAL:
                    break
        await asynchronous.close()
        return events

    check_answer(check_events(asyncio.run(create()), ResponsesServerEvent))


def responses_over_http():
    whole = client.responses.create(model=MODEL, input=asked(), max_output_tokens=8)
    validate(Response, whole)
    check_answer(whole)
    stream = client.responses.create(model=MODEL, input=asked(), max_output_tokens=8, stream=True)
    check_answer(check_events(list(stream), ResponseStreamEvent))
    [item] = client.responses.input_items.list(whole.id).data
    assert [part.type for part in item.content] == ["input_image", "input_text"], item
    assert item.content[0].image_url == PICTURE


def chat_completions():
    request = {"model": MODEL, "messages": messages(), "max_completion_tokens": 8}
    whole = client.chat.completions.create(**request)
    validate(ChatCompletion, whole)
    assert whole.choices[0].message.content == EXPECTED["text"], whole
    assert whole.usage.prompt_tokens == EXPECTED["tokens"], whole.usage
    text = ""
    for chunk in client.chat.completions.create(**request, stream=True):
        validate(ChatCompletionChunk, chunk)
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == EXPECTED["text"], text
    error = raises(
        openai.BadRequestError,
        "invalid_request",
        lambda: client.chat.completions.create(
            **request | {"messages": messages("https://example.com/a.png")}
        ),
    )
    assert error.param == "messages[0].content[0].image_url", error.param


run([responses_over_the_socket, refused_on_the_socket, asynchronous_socket, responses_over_http, chat_completions])
