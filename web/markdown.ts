/**
 * Markdown of a model as safe DOM. Three walls: raw HTML in the text is shown as text, DOMPurify lets only a short list of
 * elements and attributes through, and the page's CSP forbids inline script and foreign images. Images become links, so that
 * no answer can make the browser call another host.
 */

import type DOMPurifyType from './vendor/dompurify.js';
import type { Marked, Token } from './vendor/marked.js';

const ALLOWED_TAGS = [
  ...['p', 'br', 'hr', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'blockquote', 'pre', 'code'],
  ...['ul', 'ol', 'li', 'strong', 'em', 'del', 'a'],
  ...['table', 'thead', 'tbody', 'tr', 'th', 'td'],
];
const ALLOWED_ATTRIBUTES = ['href', 'title', 'class', 'align', 'start'];
const SAFE_LINK = /^(?:https?:|mailto:)/i;

const escapeHtml = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');

export class MarkdownRenderer {
  readonly #marked: Marked;
  readonly #purify: typeof DOMPurifyType;

  constructor(marked: Marked, purify: typeof DOMPurifyType) {
    marked.use({
      gfm: true,
      renderer: {
        html: ({ text }) => escapeHtml(text),
        image: ({ href, text }) =>
          `<a href="${escapeHtml(href)}">Image: ${escapeHtml(text || href)}</a>`,
        checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
      },
    });
    purify.addHook('afterSanitizeAttributes', (node) => {
      if (node.tagName !== 'A' || !node.hasAttribute('href')) return;
      node.setAttribute('target', '_blank');
      node.setAttribute('rel', 'noopener noreferrer nofollow');
    });
    this.#marked = marked;
    this.#purify = purify;
  }

  /** The top-level pieces of a text: paragraphs, lists, code blocks. */
  pieces(text: string): Token[] {
    return this.#marked.lexer(text);
  }

  render(piece: Token): DocumentFragment {
    return this.#purify.sanitize(this.#marked.parser([piece]), {
      ALLOWED_TAGS,
      ALLOWED_ATTR: ALLOWED_ATTRIBUTES,
      ADD_URI_SAFE_ATTR: ['align', 'start'],
      ALLOWED_URI_REGEXP: SAFE_LINK,
      ALLOW_DATA_ATTR: false,
      ALLOW_ARIA_ATTR: false,
      RETURN_DOM_FRAGMENT: true,
    });
  }
}
