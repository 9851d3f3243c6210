/** One turn on the page: a question with its edit box, or an answer with its figures, error and actions. */

import { figures } from './answer.ts';
import { copyText } from './clipboard.ts';
import { type AssistantTurn, isRunning, type Turn, type UserTurn } from './conversation.ts';
import { button, element, icon } from './dom.ts';
import { type AdviceAction, adviceFor } from './error-advice.ts';
import { count, duration } from './format.ts';
import type { MarkdownRenderer } from './markdown.ts';
import { MarkdownView } from './markdown-view.ts';
import { pictureWithGrid } from './picture-strip.ts';

export interface TurnActions {
  edit(questionId: string, text: string): void;
  regenerate(answerId: string): void;
  show(turnId: string): void;
  follow(action: AdviceAction, answer: AssistantTurn): void;
  pictureUrl(id: string): string | undefined;
}

export interface TurnView {
  readonly element: HTMLElement;
  /** Draws the turn as it is now; `versions` are it and its siblings, oldest first. */
  update(versions: readonly Turn[]): void;
}

/** "2 / 3" between two arrows; hidden while there is only one version. */
class VersionSwitch {
  readonly element = element('div', { class: 'versions' });
  #drawn = '';

  update(turn: Turn, versions: readonly Turn[], show: (turnId: string) => void): void {
    const index = versions.indexOf(turn);
    const label = `${index + 1} / ${versions.length}`;
    if (this.#drawn === label) return;
    this.#drawn = label;
    this.element.hidden = versions.length < 2;
    const step = (name: string, iconName: string, target: Turn | undefined): HTMLButtonElement => {
      const created = button(name, iconName, () => target !== undefined && show(target.id));
      created.disabled = target === undefined;
      return created;
    };
    this.element.replaceChildren(
      step('Previous version', 'previous', versions[index - 1]),
      element('span', { class: 'version-count' }, label),
      step('Next version', 'next', versions[index + 1]),
    );
  }
}

export class QuestionView implements TurnView {
  readonly element = element('article', { class: 'turn turn-user', 'aria-label': 'You' });
  readonly #turn: UserTurn;
  readonly #actions: TurnActions;
  readonly #versions = new VersionSwitch();
  readonly #text: HTMLElement;
  readonly #pictures: HTMLElement;
  readonly #bar: HTMLElement;
  readonly #edit: HTMLButtonElement;
  #drawnPictures = '';

  constructor(turn: UserTurn, actions: TurnActions) {
    this.#turn = turn;
    this.#actions = actions;
    this.#text = element('div', { class: 'bubble' }, turn.text);
    this.#text.hidden = turn.text === '';
    this.#pictures = element('div', { class: 'turn-pictures' });
    const copy = button('Copy question', 'copy', () => copyText(turn.text, copy));
    this.#edit = button('Edit question', 'edit', () => this.#openEditor());
    this.#bar = element('div', { class: 'turn-bar' }, this.#versions.element, this.#edit, copy);
    this.element.append(this.#pictures, this.#text, this.#bar);
  }

  /** Anew when one has come from the database, or is gone. */
  #drawPictures(): void {
    const { pictures = [] } = this.#turn;
    const urls = pictures.map(({ id }) => this.#actions.pictureUrl(id));
    const known = urls.map((url) => (url === undefined ? '0' : '1')).join('');
    if (known === this.#drawnPictures) return;
    this.#drawnPictures = known;
    const drawn = pictures.map((picture, i) => {
      const url = urls[i];
      return url === undefined
        ? element('span', { class: 'picture-lost' }, `${picture.name} is no longer in this browser`)
        : pictureWithGrid(picture, url, null);
    });
    this.#pictures.replaceChildren(...drawn);
  }

  update(versions: readonly Turn[]): void {
    this.#versions.update(this.#turn, versions, this.#actions.show);
    this.#drawPictures();
  }

  #openEditor(): void {
    const area = element('textarea', { class: 'edit-text', 'aria-label': 'Edit question' });
    area.value = this.#turn.text;
    area.rows = Math.min(12, this.#turn.text.split('\n').length + 1);
    const close = (): void => {
      this.element.replaceChildren(this.#pictures, this.#text, this.#bar);
      this.#edit.focus();
    };
    const send = (): void => {
      const text = area.value.trim();
      if (text === '') return;
      close();
      this.#actions.edit(this.#turn.id, text);
    };
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        close();
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const cancel = element('button', { type: 'button', class: 'button' }, 'Cancel');
    cancel.addEventListener('click', close);
    const save = element('button', { type: 'button', class: 'button button-primary' }, 'Ask again');
    save.addEventListener('click', send);
    this.element.replaceChildren(
      this.#pictures,
      element(
        'div',
        { class: 'editor' },
        area,
        element('div', { class: 'editor-bar' }, cancel, save),
      ),
    );
    area.focus();
  }
}

export class AnswerView implements TurnView {
  readonly element = element('article', {
    class: 'turn turn-assistant',
    'aria-label': 'Assistant',
  });
  readonly #turn: AssistantTurn;
  readonly #actions: TurnActions;
  readonly #versions = new VersionSwitch();
  readonly #markdown: MarkdownView;
  readonly #progress = element('div', { class: 'progress-line' });
  readonly #error = element('div');
  readonly #bar: HTMLElement;
  readonly #figures = element('span', { class: 'figures' });
  readonly #regenerate: HTMLButtonElement;
  readonly #copy: HTMLButtonElement;
  #drawnText: string | null = null;
  #drawnError: unknown = null;

  constructor(turn: AssistantTurn, renderer: MarkdownRenderer, actions: TurnActions) {
    this.#turn = turn;
    this.#actions = actions;
    this.#markdown = new MarkdownView(renderer);
    this.#copy = button('Copy answer', 'copy', () => copyText(turn.text, this.#copy));
    this.#regenerate = button('Regenerate', 'regenerate', () => actions.regenerate(turn.id));
    this.#bar = element(
      'div',
      { class: 'turn-bar' },
      this.#versions.element,
      this.#copy,
      this.#regenerate,
      this.#figures,
    );
    this.element.append(this.#markdown.element, this.#progress, this.#error, this.#bar);
  }

  update(versions: readonly Turn[]): void {
    const turn = this.#turn;
    const isBusy = isRunning(turn);
    this.#versions.update(turn, versions, this.#actions.show);
    if (this.#drawnText !== turn.text) {
      this.#markdown.update(turn.text);
      this.#drawnText = turn.text;
    }
    this.element.setAttribute('aria-busy', String(isBusy));
    this.element.classList.toggle('is-writing', turn.status === 'streaming');
    this.#progress.hidden = turn.status !== 'waiting';
    if (turn.status === 'waiting') this.#progress.replaceChildren(...progressLine(turn));
    if (this.#drawnError !== turn.error) this.#drawError();
    this.#copy.hidden = turn.text === '' || isBusy;
    const hasRetryButton = turn.error !== null && adviceFor(turn.error).action === 'retry';
    this.#regenerate.hidden = isBusy || hasRetryButton;
    this.#figures.textContent = figuresLine(turn);
  }

  #drawError(): void {
    const { error } = this.#turn;
    this.#drawnError = error;
    this.#error.replaceChildren();
    if (error === null) return;
    const { title, todo, action } = adviceFor(error);
    const act = element(
      'button',
      { type: 'button', class: 'button' },
      ACTION_LABELS[action ?? 'retry'],
    );
    act.addEventListener('click', () => this.#actions.follow(action ?? 'retry', this.#turn));
    this.#error.append(
      element(
        'div',
        { class: 'error-card', role: 'alert' },
        icon('warning'),
        element(
          'div',
          { class: 'error-text' },
          element('strong', {}, title),
          element('p', {}, todo),
          element('p', { class: 'error-detail' }, error.message),
        ),
        act,
      ),
    );
  }
}

export const ACTION_LABELS: Readonly<Record<AdviceAction, string>> = {
  retry: 'Try again',
  settings: 'Open settings',
  'new-chat': 'New chat',
};

/** What the engine does before the first token, in words and, when it tells, as a bar. */
function progressLine(turn: AssistantTurn): HTMLElement[] {
  const { progress } = turn;
  const dots = element('span', { class: 'dots', 'aria-hidden': 'true' });
  if (progress === null) {
    return [
      dots,
      element('span', {}, turn.responseId === null ? 'Connecting' : 'Waiting for the first word'),
    ];
  }
  const { phase, position, percent, etaSeconds } = progress;
  const parts = [PHASES[phase] ?? phase.replaceAll('_', ' ')];
  if (position !== null && position > 0) parts.push(`${position} ahead`);
  if (etaSeconds !== null) parts.push(`about ${duration(Math.max(1, Math.round(etaSeconds)))}`);
  const bar = element('progress', { max: '100', 'aria-label': 'Progress' });
  if (percent !== null) bar.value = percent;
  const line = element('span', {}, parts.join(' · '));
  return percent === null ? [dots, line] : [dots, line, bar];
}

const PHASES: Readonly<Record<string, string>> = {
  queued: 'In the queue',
  loading: 'Loading the model',
  prefill: 'Reading the prompt',
};

function figuresLine(turn: AssistantTurn): string {
  const { tokens, tokensPerSecond, timeToFirstTokenMs } = figures(turn);
  const cached = turn.usage?.input_tokens_details?.cached_tokens ?? 0;
  const parts = [
    tokens > 0 ? `${tokens} tokens` : '',
    tokensPerSecond === null ? '' : `${count(tokensPerSecond)} tokens/s`,
    timeToFirstTokenMs === null ? '' : `first after ${duration(timeToFirstTokenMs / 1000)}`,
    cached > 0 ? `${cached} of ${turn.usage?.input_tokens} prompt tokens from cache` : '',
    turn.status === 'cancelled' ? 'stopped' : '',
    turn.status === 'incomplete'
      ? turn.incompleteReason === 'max_output_tokens'
        ? 'cut at the token limit'
        : 'incomplete'
      : '',
  ];
  return parts.filter((part) => part !== '').join(' · ');
}
