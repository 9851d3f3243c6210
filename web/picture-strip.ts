/** The pictures waiting above the message box: how each will be cut, what it costs, and a way to take it back. */

import { button, byId, element, svgElement } from './dom.ts';
import { type Picture, PictureError, readPicture } from './pictures.ts';
import { cutOf, type Vision } from './tile-grid.ts';

export interface StripActions {
  newId(): string;
  /** A picture was added or taken away. */
  changed(): void;
  /** Why a file was not taken. */
  refused(message: string): void;
}

export class PictureStrip {
  readonly #strip = byId('pictures', HTMLElement);
  readonly #actions: StripActions;
  #pictures: Picture[] = [];
  #vision: Vision | null = null;

  constructor(actions: StripActions) {
    this.#actions = actions;
    const choose = byId('attach', HTMLButtonElement);
    const input = element('input', { type: 'file', accept: 'image/*', multiple: '' });
    choose.addEventListener('click', () => input.click());
    input.addEventListener('change', () => {
      void this.#add(input.files);
      input.value = '';
    });
    const stage = byId('panel-chat', HTMLElement);
    const setDropping = (isDropping: boolean): void => {
      stage.classList.toggle('is-dropping', isDropping);
    };
    for (const type of ['dragenter', 'dragover'] as const) {
      stage.addEventListener(type, (event) => {
        if (!event.dataTransfer?.types.includes('Files')) return;
        event.preventDefault();
        setDropping(true);
      });
    }
    stage.addEventListener('dragleave', (event) => {
      if (!stage.contains(event.relatedTarget as Node | null)) setDropping(false);
    });
    stage.addEventListener('drop', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      setDropping(false);
      void this.#add(event.dataTransfer.files);
    });
    document.addEventListener('paste', (event) => {
      const files = event.clipboardData?.files;
      if (files === undefined || files.length === 0) return;
      event.preventDefault();
      void this.#add(files);
    });
  }

  get isEmpty(): boolean {
    return this.#pictures.length === 0;
  }

  /** Null for a model that reads text only. */
  setVision(vision: Vision | null): void {
    this.#vision = vision;
    byId('attach', HTMLElement).hidden = vision === null;
    this.#draw();
  }

  /** Hands the pictures over to a question. */
  take(): readonly Picture[] {
    const taken = this.#pictures;
    this.#pictures = [];
    this.#draw();
    return taken;
  }

  async #add(files: FileList | null): Promise<void> {
    if (this.#vision === null) {
      this.#actions.refused('The model that is served reads text only.');
      return;
    }
    for (const file of [...(files ?? [])]) {
      try {
        this.#pictures.push(await readPicture(file, this.#actions.newId()));
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        this.#actions.refused(error.message);
      }
    }
    this.#draw();
    this.#actions.changed();
  }

  #draw(): void {
    this.#strip.hidden = this.#pictures.length === 0;
    this.#strip.replaceChildren(...this.#pictures.map((picture) => this.#card(picture)));
  }

  #card(picture: Picture): HTMLElement {
    const remove = button(`Remove ${picture.name}`, 'close', () => {
      this.#pictures = this.#pictures.filter((one) => one !== picture);
      this.#draw();
      this.#actions.changed();
    });
    return element(
      'figure',
      { class: 'picture-card' },
      pictureWithGrid(picture, picture.url, this.#vision),
      element(
        'figcaption',
        {},
        element('span', { class: 'picture-name' }, picture.name),
        element('span', {}, costLine(picture, this.#vision)),
      ),
      remove,
    );
  }
}

function costLine({ width, height }: Picture, vision: Vision | null): string {
  const size = `${width} × ${height}`;
  if (vision === null) return size;
  const { tiles, tokens } = cutOf(width, height, vision);
  return `${size} · ${tiles === 1 ? '1 tile' : `${tiles} tiles`} · ${tokens} tokens`;
}

/** The picture, with the lines along which the engine cuts it. */
export function pictureWithGrid(
  picture: { readonly name: string; readonly width: number; readonly height: number },
  url: string,
  vision: Vision | null,
): HTMLElement {
  const box = element('div', { class: 'picture' }, element('img', { src: url, alt: picture.name }));
  if (vision === null) return box;
  const { columns, rows } = cutOf(picture.width, picture.height, vision);
  const lines = svgElement('svg', {
    class: 'picture-grid',
    viewBox: `0 0 ${columns} ${rows}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  });
  const line = (x1: number, y1: number, x2: number, y2: number): void => {
    const ends = { x1, y1, x2, y2 };
    const attributes = Object.entries(ends).map(([name, value]) => [name, String(value)]);
    lines.append(svgElement('line', Object.fromEntries(attributes)));
  };
  for (let column = 1; column < columns; column++) line(column, 0, column, rows);
  for (let row = 1; row < rows; row++) line(0, row, columns, row);
  box.append(lines);
  return box;
}
