/** The message box: grows with its text, sends on Enter, turns its button into Stop while an answer runs. */

import { byId } from './dom.ts';

const LONGEST_BOX_PX = 240;

export class Composer {
  readonly #form = byId('composer', HTMLFormElement);
  readonly #area = byId('message', HTMLTextAreaElement);
  readonly #send = byId('send', HTMLButtonElement);
  readonly #stop = byId('stop', HTMLButtonElement);
  #isRunning = false;

  constructor(actions: { ask(text: string): void; stop(): void }) {
    const submit = (): void => {
      const text = this.#area.value.trim();
      if (text === '' || this.#isRunning) return;
      this.#area.value = '';
      this.#fit();
      actions.ask(text);
    };
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      submit();
    });
    this.#area.addEventListener('input', () => this.#fit());
    this.#area.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    });
    this.#stop.addEventListener('click', () => {
      actions.stop();
      this.focus();
    });
    document.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && !event.defaultPrevented && this.#isRunning) actions.stop();
    });
    this.#fit();
  }

  setRunning(isRunning: boolean): void {
    if (isRunning === this.#isRunning) return;
    this.#isRunning = isRunning;
    const hadFocus = document.activeElement === this.#send || document.activeElement === this.#stop;
    this.#send.hidden = isRunning;
    this.#stop.hidden = !isRunning;
    if (hadFocus) (isRunning ? this.#stop : this.#area).focus();
  }

  focus(): void {
    this.#area.focus();
  }

  #fit(): void {
    this.#area.style.height = 'auto';
    this.#area.style.height = `${Math.min(this.#area.scrollHeight, LONGEST_BOX_PX)}px`;
    this.#send.disabled = this.#area.value.trim() === '';
  }
}
