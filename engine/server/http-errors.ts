/** Errors as clients read them: OpenAI's body, the status of the catalogue, Retry-After where waiting helps. */
import type { FastifyReply } from 'fastify';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { ErrorBody, ErrorEvent } from '#engine/protocol/responses-event.ts';

export const errorBody = (error: NvlmError): ErrorBody => ({
  message: error.message,
  type: error.type,
  code: error.code,
  param: error.param,
});

/** The `error` event of the socket; `sequence_number` 0 since it belongs to no response. */
export function errorEvent(error: NvlmError, streamId: string | undefined): ErrorEvent {
  const body = errorBody(error);
  const retry = error.retryAfterSeconds;
  return {
    type: 'error',
    status: error.status,
    code: body.code,
    message: body.message,
    param: body.param,
    error: retry === undefined ? body : { ...body, headers: { 'retry-after': String(retry) } },
    sequence_number: 0,
    ...(streamId === undefined ? {} : { stream_id: streamId }),
  };
}

/** Any thrown value as a NvlmError; what is not ours becomes 'internal_error' with no detail. */
export function asNvlmError(thrown: unknown): NvlmError {
  if (thrown instanceof NvlmError) return thrown;
  return fromFramework(thrown) ?? internalError(thrown);
}

const internalError = (cause: unknown): NvlmError =>
  new NvlmError(
    'internal_error',
    'the server failed; the log line of this request id has the cause',
    {
      cause,
    },
  );

/** The framework refuses bodies on its own; its codes are mapped to ours. */
function fromFramework(thrown: unknown): NvlmError | undefined {
  const { code, message } = thrown as { readonly code?: unknown; readonly message?: unknown };
  const text = String(message);
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new NvlmError('request_too_large', 'the body is larger than the server accepts');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new NvlmError(
        'unsupported_media_type',
        'expected a body of content-type application/json',
      );
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new NvlmError('invalid_json', `expected one JSON object: ${text}`);
    case 'FST_ERR_BAD_URL':
      return new NvlmError('invalid_request', text);
    default:
      return undefined;
  }
}

export function sendError(reply: FastifyReply, error: NvlmError): FastifyReply {
  if (error.retryAfterSeconds !== undefined) {
    reply.header('retry-after', String(Math.ceil(error.retryAfterSeconds)));
  }
  if (error.code === 'invalid_api_key') reply.header('www-authenticate', 'Bearer');
  return reply.code(error.status).send({ error: errorBody(error) });
}
