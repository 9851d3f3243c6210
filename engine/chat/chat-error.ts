/** What went wrong between the chat and its engine, in words for the person at the terminal. */
export class ChatError extends Error {
  /** The engine's own code, or 'connection_lost', 'connection_refused', 'engine_ended'. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'ChatError';
    this.code = code;
  }
}
