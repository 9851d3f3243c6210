/** What the Responses interface sends: the response object and its events, as the official clients read them. */

export interface LogprobItem {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
  readonly top_logprobs: readonly {
    readonly token: string;
    readonly bytes: readonly number[];
    readonly logprob: number;
  }[];
}

export interface OutputText {
  readonly type: 'output_text';
  readonly text: string;
  readonly annotations: never[];
  readonly logprobs: LogprobItem[];
}

export interface OutputMessage {
  readonly id: string;
  readonly type: 'message';
  readonly role: 'assistant';
  readonly status: 'in_progress' | 'completed' | 'incomplete';
  readonly content: OutputText[];
}

export type ResponseStatus =
  | 'queued'
  | 'in_progress'
  | 'completed'
  | 'incomplete'
  | 'failed'
  | 'cancelled';

export interface ResponseUsage {
  readonly input_tokens: number;
  readonly input_tokens_details: {
    readonly cached_tokens: number;
    readonly cache_write_tokens: number;
  };
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly total_tokens: number;
}

export interface ResponseObject {
  readonly id: string;
  readonly object: 'response';
  /** Unix seconds. */
  readonly created_at: number;
  readonly completed_at: number | null;
  readonly status: ResponseStatus;
  /** Of OpenAI's own models only; its clients declare the field as always there. */
  readonly access_programs: null;
  readonly background: boolean;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly incomplete_details: { readonly reason: 'max_output_tokens' } | null;
  readonly instructions: string | null;
  readonly max_output_tokens: number | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly model: string;
  readonly output: OutputMessage[];
  readonly parallel_tool_calls: boolean;
  readonly previous_response_id: string | null;
  readonly store: boolean;
  readonly temperature: number;
  readonly text: { readonly format: { readonly type: 'text' } };
  readonly tool_choice: 'none';
  readonly tools: never[];
  readonly top_logprobs: number;
  readonly top_p: number;
  readonly truncation: 'disabled';
  readonly usage: ResponseUsage | null;
  /** Extensions, present when the request set return_token_ids. */
  readonly prompt_token_ids?: readonly number[];
  readonly token_ids?: readonly number[];
}

interface Numbered {
  /** 0, 1, 2 ... within one response. */
  readonly sequence_number: number;
  /** The lane of the socket; on every event of a request that named one. */
  readonly stream_id?: string;
}

interface InItem extends Numbered {
  readonly item_id: string;
  readonly output_index: number;
  readonly content_index: number;
}

export type LifecycleType =
  | 'response.created'
  | 'response.queued'
  | 'response.in_progress'
  | 'response.completed'
  | 'response.incomplete'
  | 'response.failed';

/** Extension, sent while a response waits or its prompt is being read. */
export interface ProgressEvent extends Numbered {
  readonly type: 'nvlm.progress';
  readonly response_id: string;
  readonly phase: 'queued' | 'prefill';
  /** Requests ahead in the queue; null once the prompt is being read. */
  readonly position: number | null;
  /** Of the prompt, 0 to 100; null while queued. */
  readonly percent: number | null;
  /** Until the phase ends; null when nothing was measured yet. */
  readonly eta_seconds: number | null;
}

export interface ErrorBody {
  readonly message: string;
  readonly type: string;
  readonly code: string;
  readonly param: string | null;
}

/** Both shapes the clients know: the HTTP error body under `error`, and its fields beside `type`. */
export interface ErrorEvent extends Numbered {
  readonly type: 'error';
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
  readonly error: ErrorBody & { readonly headers?: Readonly<Record<string, string>> };
}

export type ResponsesEvent =
  | (Numbered & { readonly type: LifecycleType; readonly response: ResponseObject })
  | (Numbered & {
      readonly type: 'response.output_item.added' | 'response.output_item.done';
      readonly output_index: number;
      readonly item: OutputMessage;
    })
  | (InItem & {
      readonly type: 'response.content_part.added' | 'response.content_part.done';
      readonly part: OutputText;
    })
  | (InItem & {
      readonly type: 'response.output_text.delta';
      readonly delta: string;
      readonly logprobs: readonly LogprobItem[];
      /** Extension, with return_token_ids. */
      readonly token_ids?: readonly number[];
    })
  | (InItem & {
      readonly type: 'response.output_text.done';
      readonly text: string;
      readonly logprobs: readonly LogprobItem[];
    })
  | ProgressEvent
  | ErrorEvent;

/** Frames a client may send besides `response.create`, which is the body of POST /v1/responses plus these fields. */
export interface ResponseCreateExtras {
  readonly type: 'response.create';
  readonly stream_id?: string;
  /** false: compute the prompt only, so that a later request starts from a warm cache. */
  readonly generate?: boolean;
}

/** Ends a running response of this lane, or the named one. */
export interface ResponseCancel {
  readonly type: 'response.cancel';
  readonly response_id?: string;
  readonly stream_id?: string;
}

/** Extension: sends the events after `starting_after` (all when absent) of a response in memory, and then live ones. */
export interface ResponseResume {
  readonly type: 'response.resume';
  readonly response_id: string;
  readonly starting_after?: number;
  readonly stream_id?: string;
}
