/** One message above the composer about the page as a whole: no connection, no key, storage full. */

import { button, byId, element, icon } from './dom.ts';

export interface BannerContent {
  readonly title: string;
  readonly text: string;
  readonly action?: { readonly label: string; readonly run: () => void };
}

export class Banner {
  readonly #region = byId('banner', HTMLElement);
  #shown: string | null = null;
  #title = '';

  /** `subject` names what it is about, so that only that subject takes it away again. */
  show(subject: string, content: BannerContent): void {
    const { title, text, action } = content;
    const body = this.#region.querySelector('p');
    // Built anew it would take the focus from its button.
    if (this.#shown === subject && body !== null && this.#title === title) {
      body.textContent = text;
      return;
    }
    this.#shown = subject;
    this.#title = title;
    const act =
      action === undefined
        ? null
        : element('button', { type: 'button', class: 'button' }, action.label);
    act?.addEventListener('click', () => action?.run());
    this.#region.replaceChildren(
      element(
        'div',
        { class: 'error-card' },
        icon('warning'),
        element(
          'div',
          { class: 'error-text' },
          element('strong', {}, title),
          element('p', {}, text),
        ),
        act,
        button('Dismiss', 'close', () => this.clear(subject)),
      ),
    );
  }

  clear(subject: string): void {
    if (this.#shown !== subject) return;
    this.#shown = null;
    this.#region.replaceChildren();
  }
}
