/** The chat itself: lines in, answers and notes out. Knows neither streams nor processes. */
import { writeFileSync } from 'node:fs';
import { ChatError } from './chat-error.ts';
import { Conversation } from './conversation.ts';
import type { AnswerEvent, Question } from './responses-client.ts';

export interface AnswerSource {
  answer(question: Question): AsyncIterable<AnswerEvent>;
  cancel(): void;
}

export interface Terminal {
  /** Text of the model, as it comes. */
  write(text: string): void;
  /** A whole line about the chat. */
  note(text: string): void;
}

const HELP = `/help            this list
/system [TEXT]   show or set the system prompt; /system off removes it
/reset           forget the conversation, keep the system prompt
/save [FILE]     write the conversation as Markdown
/quit            leave; so does Ctrl-D
Ctrl-C stops the answer, a second Ctrl-C leaves. A line that ends with \\ goes on in the next one.`;

export class ChatSession {
  readonly #source: AnswerSource;
  readonly #terminal: Terminal;
  /** Milliseconds. */
  readonly #now: () => number;
  readonly #conversation: Conversation;
  #isAnswering = false;
  /** Since the last line of the user. */
  #interrupts = 0;
  #unfinishedLines = '';

  constructor(
    source: AnswerSource,
    terminal: Terminal,
    system: string | undefined,
    now: () => number,
  ) {
    this.#source = source;
    this.#terminal = terminal;
    this.#conversation = new Conversation(system);
    this.#now = now;
  }

  get isAnswering(): boolean {
    return this.#isAnswering;
  }

  /** One line of the user; resolves when its answer is out. 'leave': the user wants to go. */
  async read(line: string): Promise<'stay' | 'leave'> {
    this.#interrupts = 0;
    if (line.endsWith('\\')) {
      this.#unfinishedLines += `${line.slice(0, -1)}\n`;
      return 'stay';
    }
    const text = this.#unfinishedLines + line;
    this.#unfinishedLines = '';
    const [, command, rest = ''] = /^\/(\w+)(?:\s+(.*))?$/s.exec(text) ?? [];
    if (command !== undefined) return this.#command(command, rest.trim());
    if (text.startsWith('/'))
      this.#terminal.note('A text may not begin with /; put a space before it.');
    else if (text.trim() !== '') await this.#answer(text);
    return 'stay';
  }

  /** Ctrl-C. */
  interrupt(): 'stay' | 'leave' {
    this.#interrupts++;
    if (this.#interrupts > 1) return 'leave';
    this.#unfinishedLines = '';
    if (this.#isAnswering) this.#source.cancel();
    else this.#terminal.note('Ctrl-C again to leave.');
    return 'stay';
  }

  #command(command: string, rest: string): 'stay' | 'leave' {
    const { note } = this.#terminal;
    const conversation = this.#conversation;
    switch (command) {
      case 'help':
        note(HELP);
        return 'stay';
      case 'system':
        if (rest !== '') conversation.system = rest === 'off' ? undefined : rest;
        note(`System prompt: ${conversation.system ?? 'none of your own'}`);
        return 'stay';
      case 'reset':
        conversation.reset();
        note('The conversation is forgotten.');
        return 'stay';
      case 'save':
        this.#save(rest);
        return 'stay';
      case 'quit':
      case 'exit':
        return 'leave';
      default:
        note(`Unknown command /${command}; /help lists them.`);
        return 'stay';
    }
  }

  #save(name: string): void {
    const stamp = new Date(this.#now()).toISOString().slice(0, 19).replace(/[-:]/g, '');
    const file = name === '' ? `chat-${stamp}.md` : name;
    try {
      // Never over a file that is there: the name may be a slip.
      writeFileSync(file, this.#conversation.toMarkdown(), { flag: 'wx' });
      this.#terminal.note(`Saved ${this.#conversation.length} messages to ${file}.`);
    } catch (error) {
      this.#terminal.note(`Not saved: ${(error as Error).message}`);
    }
  }

  async #answer(text: string): Promise<void> {
    this.#isAnswering = true;
    try {
      try {
        await this.#stream(text, this.#conversation.ask(text));
      } catch (error) {
        if (!(error instanceof ChatError) || error.code !== 'response_not_found') throw error;
        await this.#stream(text, this.#conversation.ask(text, true));
      }
    } catch (error) {
      if (!(error instanceof ChatError)) throw error;
      const advice = error.code === 'context_length_exceeded' ? ' /reset starts afresh.' : '';
      this.#terminal.note(`${error.message}${advice}`);
    } finally {
      this.#isAnswering = false;
    }
  }

  async #stream(text: string, question: Question): Promise<void> {
    const startedAt = this.#now();
    let firstAt: number | undefined;
    let answer = '';
    let waitingNote = '';
    try {
      for await (const event of this.#source.answer(question)) {
        if (event.type === 'text') {
          firstAt ??= this.#now();
          answer += event.text;
          this.#terminal.write(event.text);
        } else if (event.type === 'waiting') {
          const told = describeWaiting(event);
          if (told !== waitingNote) this.#terminal.note(told);
          waitingNote = told;
        } else {
          this.#finish(text, answer, event, startedAt, firstAt);
        }
      }
    } catch (error) {
      if (answer !== '') this.#terminal.write('\n');
      throw error;
    }
  }

  #finish(
    text: string,
    answer: string,
    end: Extract<AnswerEvent, { type: 'end' }>,
    startedAt: number,
    firstAt: number | undefined,
  ): void {
    if (answer !== '' && !answer.endsWith('\n')) this.#terminal.write('\n');
    const isCut = end.reason === 'cancelled';
    this.#conversation.record(text, answer, isCut ? undefined : end.responseId);
    const parts = [`${end.outputTokens} token${end.outputTokens === 1 ? '' : 's'}`];
    const streamedFor = firstAt === undefined ? 0 : (this.#now() - firstAt) / 1000;
    if (end.outputTokens > 1 && streamedFor > 0) {
      parts.push(`${((end.outputTokens - 1) / streamedFor).toFixed(1)} tokens/s`);
    }
    if (firstAt !== undefined) {
      parts.push(`first after ${((firstAt - startedAt) / 1000).toFixed(2)} s`);
    }
    if (isCut) parts.push('stopped');
    if (end.reason === 'length') parts.push('cut at the token limit');
    this.#terminal.note(`[${parts.join(', ')}]`);
  }
}

function describeWaiting({ position, percent }: Extract<AnswerEvent, { type: 'waiting' }>): string {
  if (position !== null && position > 0) return `Waiting: ${position} ahead in the queue.`;
  return percent === null ? 'Waiting for the engine.' : 'Reading the prompt.';
}
