/** One answer's Markdown on the page. While it grows only the pieces that changed are drawn again, so selections stay. */

import { copyText } from './clipboard.ts';
import { button, element } from './dom.ts';
import type { MarkdownRenderer } from './markdown.ts';

export class MarkdownView {
  readonly element = element('div', { class: 'markdown' });
  readonly #renderer: MarkdownRenderer;
  #drawn: string[] = [];

  constructor(renderer: MarkdownRenderer) {
    this.#renderer = renderer;
  }

  update(text: string): void {
    const pieces = this.#renderer.pieces(text).filter((piece) => piece.type !== 'space');
    for (const [i, piece] of pieces.entries()) {
      if (this.#drawn[i] === piece.raw) continue;
      const holder = this.element.children[i] ?? this.element.appendChild(element('div'));
      const content = this.#renderer.render(piece);
      decorate(content);
      holder.replaceChildren(content);
    }
    while (this.element.children.length > pieces.length) this.element.lastElementChild?.remove();
    this.#drawn = pieces.map((piece) => piece.raw);
  }
}

/** Code blocks get their language and a copy button; wide tables scroll inside their own box. */
function decorate(content: DocumentFragment): void {
  for (const block of content.querySelectorAll('pre')) {
    const code = block.querySelector('code');
    const language = /language-(\S+)/.exec(code?.className ?? '')?.[1] ?? 'text';
    const copy = button('Copy code', 'copy', () => copyText(block.textContent ?? '', copy));
    const box = element('div', { class: 'code-block' });
    const head = element('div', { class: 'code-head' }, element('span', {}, language), copy);
    block.replaceWith(box);
    block.tabIndex = 0;
    box.append(head, block);
  }
  for (const table of content.querySelectorAll('table')) {
    const box = element('div', { class: 'table-scroll', tabindex: '0' });
    table.replaceWith(box);
    box.append(table);
  }
}
