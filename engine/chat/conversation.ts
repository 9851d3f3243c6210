/** What was said, and what of it the engine still knows. */
import type { Message, Question } from './responses-client.ts';

export class Conversation {
  system: string | undefined;
  readonly #messages: Message[] = [];
  /** The response that ended with the last message; undefined when the engine must be told everything again. */
  #responseId: string | undefined;

  constructor(system: string | undefined) {
    this.system = system;
  }

  get length(): number {
    return this.#messages.length;
  }

  /** The question as the engine needs it: with `isWhole`, or when it knows nothing, all that was said before it. */
  ask(text: string, isWhole = false): Question {
    const question: Message = { role: 'user', content: text };
    const continues = !isWhole && this.#responseId !== undefined;
    return {
      messages: continues ? [question] : [...this.#messages, question],
      system: this.system,
      previousResponseId: continues ? this.#responseId : undefined,
    };
  }

  /** `responseId` is undefined when the answer was cut short by the user: the engine is then told it as it stands. */
  record(question: string, answer: string, responseId: string | undefined): void {
    this.#messages.push(
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    );
    this.#responseId = responseId;
  }

  reset(): void {
    this.#messages.length = 0;
    this.#responseId = undefined;
  }

  toMarkdown(): string {
    const system = this.system === undefined ? [] : [`**System**\n\n${this.system}\n`];
    const said = this.#messages.map(
      ({ role, content }) => `**${role === 'user' ? 'You' : 'Model'}**\n\n${content.trim()}\n`,
    );
    return [...system, ...said].join('\n');
  }
}
