/** What an error means to the reader of the page, and what to do about it. */

import type { WireError } from './protocol.ts';

export type AdviceAction = 'retry' | 'settings' | 'new-chat';

export interface Advice {
  readonly title: string;
  readonly todo: string;
  readonly action: AdviceAction | null;
}

/** Codes of engine/protocol/errors.ts that a reader can meet, and `connection_failed`, which is the page's own. */
export const ADVICE: Readonly<Record<string, Advice>> = {
  invalid_api_key: {
    title: 'The server wants an API key',
    todo: 'Open the settings and enter the key you were given.',
    action: 'settings',
  },
  context_length_exceeded: {
    title: 'The conversation is too long for this model',
    todo: 'Start a new chat, shorten the question, or lower “Longest answer” in the settings.',
    action: 'new-chat',
  },
  invalid_request: {
    title: 'The server refused the request',
    todo: 'Correct the setting named in the message.',
    action: 'settings',
  },
  unsupported_parameter: {
    title: 'This server does not know one of the settings',
    todo: 'Clear the setting named in the message.',
    action: 'settings',
  },
  template_error: {
    title: 'The model’s chat template refused the messages',
    todo: 'Some models take no system prompt: clear it in the settings, then try again.',
    action: 'settings',
  },
  model_not_found: {
    title: 'The server does not serve this model',
    todo: 'Choose another model in the settings.',
    action: 'settings',
  },
  response_not_found: {
    title: 'The server no longer has this answer',
    todo: 'It was restarted or ran out of room. What had arrived is kept; ask again for a whole answer.',
    action: 'retry',
  },
  queue_full: {
    title: 'The server is busy',
    todo: 'Its queue is full. Wait a moment, then try again.',
    action: 'retry',
  },
  queue_timeout: {
    title: 'The server was too busy to start',
    todo: 'The request waited too long in the queue. Try again in a moment.',
    action: 'retry',
  },
  shutting_down: {
    title: 'The server is restarting',
    todo: 'Try again in a moment.',
    action: 'retry',
  },
  connection_failed: {
    title: 'The page cannot open a connection',
    todo: 'If you entered an API key, check it for spaces or unusual characters.',
    action: 'settings',
  },
};

const UNKNOWN: Advice = {
  title: 'Something went wrong on the server',
  todo: 'Try again. If it happens twice, report the message to whoever runs the server.',
  action: 'retry',
};

export function adviceFor(error: WireError): Advice {
  return ADVICE[error.code ?? ''] ?? UNKNOWN;
}
