/** Cuts a growing answer into pieces that a screen reader can speak: whole sentences, not single tokens. */

const SHORTEST_PIECE = 60;
const LONGEST_PIECE = 400;
const sentenceEnd = /[.!?:;](?=\s)|\n/g;

export class SpeechPieces {
  #spoken = 0;

  /** Treats everything in `text` as already spoken. */
  skip(text: string): void {
    this.#spoken = text.length;
  }

  /** What may be spoken now that the answer reads `text`, or '' while it is too little or ends mid-sentence. */
  next(text: string): string {
    const rest = text.slice(this.#spoken);
    if (rest.length < SHORTEST_PIECE) return '';
    let end = 0;
    for (const match of rest.matchAll(sentenceEnd)) end = match.index + 1;
    if (end < SHORTEST_PIECE) {
      if (rest.length < LONGEST_PIECE) return '';
      end = rest.lastIndexOf(' ') + 1 || rest.length;
    }
    this.#spoken += end;
    return rest.slice(0, end).trim();
  }

  /** The remainder of a finished answer. */
  last(text: string): string {
    const rest = text.slice(this.#spoken);
    this.#spoken = text.length;
    return rest.trim();
  }
}
