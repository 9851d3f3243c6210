/** The one aria-live region: what a screen reader should say. */

import { type AssistantTurn, isRunning } from './conversation.ts';
import { byId } from './dom.ts';
import { SpeechPieces } from './speech.ts';

const KEPT_LINES = 20;

/** Says a short text once the reader is free. */
export function announce(text: string): void {
  if (text === '') return;
  const region = byId('announcer', HTMLElement);
  const line = document.createElement('p');
  line.textContent = text;
  region.append(line);
  while (region.children.length > KEPT_LINES) region.firstElementChild?.remove();
}

/** Speaks answers as they grow, sentence by sentence. */
export class AnswerAnnouncer {
  #answer: AssistantTurn | null = null;
  #pieces = new SpeechPieces();

  /** Call whenever the running answer may have changed; null when none runs. */
  update(running: AssistantTurn | null): void {
    if (running !== this.#answer) {
      if (this.#answer !== null && !isRunning(this.#answer)) this.#finish(this.#answer);
      this.#answer = running;
      this.#pieces = new SpeechPieces();
      if (running !== null) {
        this.#pieces.skip(running.text);
        announce('The assistant is answering');
      }
    }
    if (running !== null) announce(this.#pieces.next(running.text));
  }

  #finish(answer: AssistantTurn): void {
    announce(this.#pieces.last(answer.text));
    announce(answer.status === 'failed' ? 'The answer failed' : 'The answer has ended');
  }
}
