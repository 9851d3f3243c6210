/** Finds added tokens inside text: leftmost first, longest of those that start at the same place. */
import type { AddedToken } from './tokenizer-json.ts';

const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

export class AddedTokenSplitter {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | undefined;

  constructor(tokens: readonly AddedToken[], spell: (content: string) => string = (same) => same) {
    this.#tokens = new Map(tokens.map((token) => [spell(token.content), token]));
    const contents = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    this.#pattern =
      contents.length === 0 ? undefined : new RegExp(contents.map(escapeRegExp).join('|'), 'gu');
  }

  /** Calls back in text order: `onText` with what lies between tokens (never empty), `onToken` with each token's id. */
  split(text: string, onText: (text: string) => void, onToken: (id: number) => void): void {
    let end = 0;
    const emit = (to: number, token?: AddedToken): void => {
      const between = text.slice(end, to);
      const trimmed = token?.lstrip === true ? between.replace(/\p{White_Space}+$/u, '') : between;
      if (trimmed !== '') onText(trimmed);
    };
    if (this.#pattern !== undefined) {
      for (const match of text.matchAll(this.#pattern)) {
        // A token before may have swallowed white space into this match.
        if (match.index < end) continue;
        const token = this.#tokens.get(match[0])!;
        emit(match.index, token);
        onToken(token.id);
        end = match.index + match[0].length;
        if (token.rstrip) end += /^\p{White_Space}*/u.exec(text.slice(end))![0].length;
      }
    }
    emit(text.length);
  }
}
