/** The settings panel: beside the chat on wide screens, over it on narrow ones. */

import { byId, element } from './dom.ts';
import { readField, SAMPLING_FIELDS, type SamplingField, type Settings } from './settings.ts';

const beside = matchMedia('(min-width: 64rem)');

export class SettingsView {
  readonly #dialog = byId('settings', HTMLDialogElement);
  readonly #opener = byId('open-settings', HTMLButtonElement);
  readonly #form = byId('settings-form', HTMLFormElement);
  readonly #settings: Settings;
  readonly #onChange: () => void;
  readonly #models = element('select', { id: 'setting-model' });

  constructor(settings: Settings, onChange: () => void) {
    this.#settings = settings;
    this.#onChange = onChange;
    this.#build();
    this.#opener.addEventListener('click', () => (this.#dialog.open ? this.close() : this.open()));
    byId('close-settings', HTMLButtonElement).addEventListener('click', () => this.close());
    this.#dialog.addEventListener('close', () => {
      this.#opener.setAttribute('aria-expanded', 'false');
    });
    this.#dialog.addEventListener('click', (event) => {
      if (event.target === this.#dialog) this.close();
    });
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.preventDefault();
      this.close();
    });
    this.#form.addEventListener('submit', (event) => event.preventDefault());
  }

  open(): void {
    if (this.#dialog.open) return;
    if (beside.matches) this.#dialog.show();
    else this.#dialog.showModal();
    this.#opener.setAttribute('aria-expanded', 'true');
  }

  close(): void {
    this.#dialog.close();
    // Not on the close event: that one comes later and would take the focus from where the reader went meanwhile.
    this.#opener.focus();
  }

  /** Fills the model list; one model needs no choice. */
  setModels(names: readonly string[]): void {
    this.#models.replaceChildren(...names.map((name) => element('option', { value: name }, name)));
    if (names.includes(this.#settings.model)) this.#models.value = this.#settings.model;
    this.#models.disabled = names.length < 2;
  }

  #build(): void {
    const settings = this.#settings;
    this.#models.addEventListener('change', () => {
      settings.model = this.#models.value;
      this.#onChange();
    });
    const system = element('textarea', {
      id: 'setting-system',
      rows: '4',
      placeholder: 'You are a helpful assistant.',
    });
    system.value = settings.systemPrompt;
    system.addEventListener('input', () => {
      settings.systemPrompt = system.value;
      this.#onChange();
    });
    const key = element('input', {
      id: 'setting-key',
      type: 'password',
      autocomplete: 'off',
      placeholder: 'Only if the server asks for one',
    });
    key.value = settings.apiKey;
    key.addEventListener('change', () => {
      settings.apiKey = key.value.trim();
      this.#onChange();
    });
    const reset = element('button', { type: 'button', class: 'button' }, 'Reset to model defaults');
    reset.addEventListener('click', () => {
      for (const { name } of SAMPLING_FIELDS) delete settings.sampling[name];
      this.#onChange();
      this.#form.replaceChildren();
      this.#build();
      this.#form.querySelector<HTMLElement>('#setting-reset')?.focus();
    });
    reset.id = 'setting-reset';
    const model = this.#models;
    this.#form.append(
      row('Model', model, 'setting-model'),
      row('System prompt', system, 'setting-system', 'Sent before every conversation.'),
      element('h3', {}, 'Sampling'),
      ...SAMPLING_FIELDS.map((field) => this.#samplingRow(field)),
      reset,
      element('h3', {}, 'Access'),
      row('API key', key, 'setting-key', 'Kept in this browser only.'),
    );
  }

  #samplingRow(field: SamplingField): HTMLElement {
    const id = `setting-${field.name}`;
    const bounds = { min: String(field.min), max: String(field.max), step: String(field.step) };
    const hint = element('p', { class: 'hint', id: `${id}-hint` }, field.hint);
    const input = element('input', {
      ...bounds,
      id,
      type: 'number',
      inputmode: 'decimal',
      placeholder: 'default',
      'aria-describedby': `${id}-hint`,
    });
    const slider = element('input', {
      ...bounds,
      type: 'range',
      'aria-label': field.label,
      tabindex: '-1',
    });
    const stored = this.#settings.sampling[field.name];
    input.value = stored === undefined ? '' : String(stored);
    slider.value = String(stored ?? field.neutral);
    slider.classList.toggle('is-unset', stored === undefined);
    const take = (): void => {
      // A number input reports '' for text that is no number.
      const reading = input.validity.badInput
        ? readField(field, 'x')
        : readField(field, input.value);
      const problem = 'problem' in reading ? reading.problem : null;
      input.setAttribute('aria-invalid', String(problem !== null));
      hint.textContent = problem ?? field.hint;
      hint.classList.toggle('is-problem', problem !== null);
      const value = 'value' in reading ? reading.value : null;
      if (value === null) delete this.#settings.sampling[field.name];
      else this.#settings.sampling[field.name] = value;
      slider.value = String(value ?? field.neutral);
      slider.classList.toggle('is-unset', value === null);
      this.#onChange();
    };
    input.addEventListener('input', take);
    slider.addEventListener('input', () => {
      input.value = slider.value;
      take();
    });
    return element(
      'div',
      { class: 'field' },
      element('div', { class: 'field-line' }, element('label', { for: id }, field.label), input),
      field.hasSlider ? slider : null,
      hint,
    );
  }
}

function row(
  label: string,
  control: HTMLElement,
  id: string,
  hint: string | null = null,
): HTMLElement {
  if (hint !== null) control.setAttribute('aria-describedby', `${id}-hint`);
  return element(
    'div',
    { class: 'field' },
    element('label', { for: id }, label),
    control,
    hint === null ? null : element('p', { class: 'hint', id: `${id}-hint` }, hint),
  );
}
