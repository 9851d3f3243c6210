/**
 * The part of the Responses API in WebSocket mode that the page reads and writes. The engine may send more event types and
 * more fields than these: whatever is not named here is ignored.
 */

export interface WireError {
  readonly code: string | null;
  readonly message: string;
  readonly type?: string;
  readonly param?: string | null;
}

export interface Usage {
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly total_tokens: number;
  readonly input_tokens_details?: { readonly cached_tokens?: number };
}

export interface ResponseObject {
  readonly id: string;
  readonly status?: string;
  readonly model?: string;
  readonly error?: WireError | null;
  readonly incomplete_details?: { readonly reason?: string } | null;
  readonly usage?: Usage | null;
  readonly output?: readonly OutputItem[];
}

interface OutputItem {
  readonly type: string;
  readonly content?: readonly { readonly type: string; readonly text?: string }[];
}

interface EventBase {
  readonly sequence_number?: number;
  readonly stream_id?: string;
}

export interface LifecycleEvent extends EventBase {
  readonly type:
    | 'response.created'
    | 'response.queued'
    | 'response.in_progress'
    | 'response.completed'
    | 'response.incomplete'
    | 'response.failed'
    | 'response.cancelled';
  readonly response: ResponseObject;
}

export interface TextDeltaEvent extends EventBase {
  readonly type: 'response.output_text.delta';
  readonly delta: string;
}

export interface TextDoneEvent extends EventBase {
  readonly type: 'response.output_text.done';
  readonly text: string;
}

/** Our extension: how far a request is that has not produced a token yet. */
export interface ProgressEvent extends EventBase {
  readonly type: 'nvlm.progress';
  readonly phase?: string;
  /** Requests ahead of this one. */
  readonly position?: number | null;
  /** 0 to 100. */
  readonly percent?: number | null;
  readonly eta_seconds?: number | null;
}

export interface ErrorEvent extends EventBase {
  readonly type: 'error';
  readonly status?: number;
  readonly error: WireError;
}

export type ServerEvent =
  | LifecycleEvent
  | TextDeltaEvent
  | TextDoneEvent
  | ProgressEvent
  | ErrorEvent;

export type ContentPart =
  | { readonly type: 'input_text'; readonly text: string }
  | { readonly type: 'input_image'; readonly image_url: string; readonly detail: 'auto' };

export interface InputMessage {
  readonly role: 'user' | 'assistant';
  readonly content: string | readonly ContentPart[];
}

export interface CreateRequest {
  readonly type: 'response.create';
  readonly stream_id: string;
  readonly input: readonly InputMessage[];
  readonly previous_response_id?: string;
  readonly model?: string;
  readonly instructions?: string;
  readonly [parameter: string]: unknown;
}

const terminalTypes: ReadonlySet<string> = new Set([
  'response.completed',
  'response.incomplete',
  'response.failed',
  'response.cancelled',
]);

/** Whether no further event of the response follows. */
export function isTerminal(event: ServerEvent): boolean {
  return event.type === 'error' || terminalTypes.has(event.type);
}

/**
 * One text frame as an event, or null when it is not JSON or not an event. Errors come nested (`error: {...}`) or flat
 * (`code`, `message` beside `type`); both give the nested form.
 */
export function parseServerEvent(frame: string): ServerEvent | null {
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const event = value as Record<string, unknown>;
  if (typeof event.type !== 'string') return null;
  if (event.type === 'error' && (typeof event.error !== 'object' || event.error === null)) {
    const { code = null, message = 'the server reported an error', param = null } = event;
    return { ...event, error: { code, message, param } } as unknown as ServerEvent;
  }
  return event as unknown as ServerEvent;
}

/** The text of all message items of a finished response, or null when it carries none. */
export function outputText(response: ResponseObject): string | null {
  const parts = (response.output ?? [])
    .filter((item) => item.type === 'message')
    .flatMap((item) => item.content ?? [])
    .filter((part) => part.type === 'output_text' && typeof part.text === 'string');
  return parts.length === 0 ? null : parts.map((part) => part.text).join('');
}
