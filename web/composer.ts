/** The message box: grows with its text, sends on Enter, turns its button into Stop while an answer runs. */

import { byId } from './dom.ts';
import type { PictureStrip } from './picture-strip.ts';
import type { Picture } from './pictures.ts';

const LONGEST_BOX_PX = 240;

export class Composer {
  readonly #form = byId('composer', HTMLFormElement);
  readonly #area = byId('message', HTMLTextAreaElement);
  readonly #send = byId('send', HTMLButtonElement);
  readonly #stop = byId('stop', HTMLButtonElement);
  readonly #strip: PictureStrip;
  #isRunning = false;

  constructor(
    strip: PictureStrip,
    actions: { ask(text: string, pictures: readonly Picture[]): void; stop(): void },
  ) {
    this.#strip = strip;
    const submit = (): void => {
      const text = this.#area.value.trim();
      if (this.#isRunning || (text === '' && strip.isEmpty)) return;
      this.#area.value = '';
      actions.ask(text, strip.take());
      this.#fit();
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

  /** After pictures came or went. */
  refresh(): void {
    this.#fit();
  }

  #fit(): void {
    this.#area.style.height = 'auto';
    this.#area.style.height = `${Math.min(this.#area.scrollHeight, LONGEST_BOX_PX)}px`;
    this.#send.disabled = this.#area.value.trim() === '' && this.#strip.isEmpty;
  }
}
