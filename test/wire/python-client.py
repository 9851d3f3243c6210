"""Checks of a live engine by the official Python client. Usage: python-client.py URL MODEL"""

import asyncio

import openai
from openai import AsyncOpenAI
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from python_checks import MODEL, TERMINAL, URL, check_events, client, raises, read_response, run, validate

QUESTION = "Name three colours of the rainbow."


def responses_over_the_socket():
    with client.responses.connect() as connection:
        connection.response.create(
            model=MODEL,
            input=QUESTION,
            max_output_tokens=20,
            include=["message.output_text.logprobs"],
            top_logprobs=2,
        )
        first = check_events(read_response(connection), ResponsesServerEvent)
        connection.response.create(
            model=MODEL, input="And one more?", max_output_tokens=10, previous_response_id=first.id
        )
        second = check_events(read_response(connection), ResponsesServerEvent)
        assert second.previous_response_id == first.id
        assert second.usage.input_tokens > first.usage.total_tokens
        assert second.usage.input_tokens_details.cached_tokens > 0


def warm_up_and_errors_on_the_socket():
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Warm words.", generate=False)
        *_, last = read_response(connection)
        assert last.type == "response.completed" and last.response.output == []
        assert last.response.usage.output_tokens == 0
        connection.response.create(model=MODEL, input="Hi", temperature=9, stream_id="lane")
        [error] = read_response(connection)
        validate(ResponsesServerEvent, error)
        assert error.type == "error" and error.error.code == "invalid_request", error
        assert error.stream_id == "lane"
        connection.response.create(model=MODEL, input="Hi", max_output_tokens=3)
        check_events(read_response(connection), ResponsesServerEvent)


def lanes_of_the_async_socket():
    async def both():
        asynchronous = AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
        lanes = {"left": [], "right": []}
        order = []
        ended = 0
        async with asynchronous.responses.connect() as connection:
            for lane in lanes:
                await connection.response.create(
                    model=MODEL,
                    input=f"{lane}: {QUESTION}",
                    max_output_tokens=40,
                    stream_id=lane,
                    temperature=0,
                )
            async for event in connection:
                lanes[event.stream_id].append(event)
                if event.type == "response.output_text.delta" and order[-1:] != [event.stream_id]:
                    order.append(event.stream_id)
                if event.type in TERMINAL:
                    ended += 1
                    if ended == 2:
                        break
        for events in lanes.values():
            check_events(events, ResponsesServerEvent)
        assert len(order) > 10, order
        await asynchronous.close()

    asyncio.run(both())


def responses_over_http():
    whole = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=16)
    validate(Response, whole)
    assert client.responses.retrieve(whole.id) == whole
    stream = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=16, stream=True)
    streamed = check_events(list(stream), ResponseStreamEvent)
    assert streamed.output_text == whole.output_text
    events = list(client.responses.retrieve(streamed.id, stream=True))
    rest = list(client.responses.retrieve(streamed.id, stream=True, starting_after=5))
    assert rest == events[6:]
    client.responses.delete(whole.id)
    raises(openai.NotFoundError, "response_not_found", lambda: client.responses.retrieve(whole.id))


def background_response_is_cancelled():
    started = client.responses.create(
        model=MODEL,
        input=QUESTION,
        max_output_tokens=900,
        background=True,
        extra_body={"ignore_eos": True},
    )
    assert started.status in ("queued", "in_progress"), started.status
    client.responses.cancel(started.id)
    for _ in client.responses.retrieve(started.id, stream=True):
        pass
    assert client.responses.retrieve(started.id).status == "cancelled"


def chat_completions():
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_completion_tokens": 16,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**request)
    validate(ChatCompletion, whole)
    text, last = "", None
    stream = client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        validate(ChatCompletionChunk, chunk)
        last = chunk
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == whole.choices[0].message.content
    assert last.usage.completion_tokens == whole.usage.completion_tokens == 16
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    error = raises(
        openai.BadRequestError,
        "unsupported_parameter",
        lambda: client.chat.completions.create(
            **request, tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]
        ),
    )
    assert error.param == "tools"


def text_completions_and_models():
    whole = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=6, echo=True, logprobs=1, n=2
    )
    # The first token of a prompt has no log-probability: null, as OpenAI sends it and the models do not declare it.
    assert whole.choices[0].logprobs.token_logprobs[0] is None
    bare = client.completions.create(model=MODEL, prompt="One, two", max_tokens=3, logprobs=1)
    validate(Completion, bare)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert "".join(whole.choices[0].logprobs.tokens) == whole.choices[0].text
    stream = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=6, echo=True, stream=True
    )
    text = "".join(choice.text for chunk in stream for choice in chunk.choices)
    assert text == whole.choices[0].text
    [model] = client.models.list().data
    validate(Model, model)
    assert model.id == MODEL
    raises(openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("other"))


run(
    [
        responses_over_the_socket,
        warm_up_and_errors_on_the_socket,
        lanes_of_the_async_socket,
        responses_over_http,
        background_response_is_cancelled,
        chat_completions,
        text_completions_and_models,
    ]
)
