/**
 * The error catalogue: every code a client or an operator of the engine can meet, with its HTTP status and OpenAI error type.
 * docs/errors.md is checked against this table by a test. Codes are never reused.
 */

export type ErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'not_found_error'
  | 'rate_limit_error'
  | 'server_error';

interface CatalogueEntry {
  readonly status: number;
  readonly type: ErrorType;
  /** What happened, in one clause, for docs. */
  readonly meaning: string;
  /** What the reader should do. */
  readonly remedy: string;
}

const entry = (
  status: number,
  type: ErrorType,
  meaning: string,
  remedy: string,
): CatalogueEntry => ({
  status,
  type,
  meaning,
  remedy,
});

export const ERRORS = {
  invalid_request: entry(
    400,
    'invalid_request_error',
    'a field of the request is missing, of the wrong type or out of range',
    'correct the field named in `param`',
  ),
  unsupported_parameter: entry(
    400,
    'invalid_request_error',
    'the request asks for something this engine does not do',
    'leave the field named in `param` out',
  ),
  unknown_parameter: entry(
    400,
    'invalid_request_error',
    'the request has a field that no version of this interface knows',
    'correct the spelling; the message names the nearest known field',
  ),
  invalid_json: entry(
    400,
    'invalid_request_error',
    'the body or frame is not one JSON object in UTF-8',
    'send valid JSON; the message quotes where it broke',
  ),
  invalid_frame: entry(
    400,
    'invalid_request_error',
    'a WebSocket frame is binary or has an event type that clients may not send',
    'send text frames of type response.create, response.cancel or response.resume',
  ),
  request_too_large: entry(
    413,
    'invalid_request_error',
    'the body or frame is larger than the server accepts',
    'send less; the message carries the limit',
  ),
  unsupported_media_type: entry(
    415,
    'invalid_request_error',
    'the body is not declared as JSON',
    'send `content-type: application/json`',
  ),
  upgrade_required: entry(
    426,
    'invalid_request_error',
    'a WebSocket address was asked over plain HTTP',
    'open a WebSocket, or use POST /v1/responses',
  ),
  context_length_exceeded: entry(
    400,
    'invalid_request_error',
    'prompt and wanted tokens do not fit the context',
    'shorten the prompt or lower the token limit; the message carries both numbers',
  ),
  template_error: entry(
    400,
    'invalid_request_error',
    'the chat template of the model refused the messages',
    'change the messages as the quoted template error says',
  ),
  invalid_api_key: entry(
    401,
    'authentication_error',
    'no API key or a wrong one was sent',
    'send `Authorization: Bearer KEY` with a key of the server',
  ),
  origin_not_allowed: entry(
    403,
    'authentication_error',
    'a web page of another origin opened the WebSocket',
    'serve the page from this server or name its origin in the allowed origins',
  ),
  route_not_found: entry(
    404,
    'not_found_error',
    'there is nothing at this method and path',
    'see docs/protocol.md for the routes',
  ),
  model_not_found: entry(
    404,
    'not_found_error',
    'the request names a model this server does not serve',
    'use a name listed by GET /v1/models',
  ),
  response_not_found: entry(
    404,
    'not_found_error',
    'no response of that id is in memory',
    'it may have been deleted or evicted; send the whole conversation again',
  ),
  queue_full: entry(
    429,
    'rate_limit_error',
    'the waiting queue is full',
    'retry after the seconds in Retry-After',
  ),
  queue_timeout: entry(
    503,
    'server_error',
    'the request waited longer than the queue timeout',
    'retry later or raise --queue-timeout',
  ),
  too_many_sockets: entry(
    503,
    'server_error',
    'the server holds as many WebSockets as it may',
    'close idle sockets, use stream_id lanes on one socket, or retry later',
  ),
  idle_timeout: entry(
    408,
    'invalid_request_error',
    'a WebSocket had nothing to do for too long and was closed',
    'open a new socket when there is something to send',
  ),
  not_ready: entry(
    503,
    'server_error',
    'the engine has not proved lately that it can decode',
    'wait; the message says what is missing',
  ),
  slow_reader: entry(
    400,
    'invalid_request_error',
    'the client did not read its stream for too long and was cut off',
    'read faster, or resume the response by its id',
  ),
  shutting_down: entry(
    503,
    'server_error',
    'the server is stopping',
    'retry against another replica',
  ),
  internal_error: entry(
    500,
    'server_error',
    'the engine failed',
    'report it with the request id; the log line of that id has the cause',
  ),
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** An error with a stable code. `message` says what was expected, what came and what to do. */
export class NvlmError extends Error {
  readonly code: ErrorCode;
  /** The request field at fault, dotted path. */
  readonly param: string | null;
  /** Seconds after which a retry may succeed. */
  readonly retryAfterSeconds: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { param?: string; retryAfterSeconds?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'NvlmError';
    this.code = code;
    this.param = options.param ?? null;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  get type(): ErrorType {
    return ERRORS[this.code].type;
  }
}
